"""Options of ESPnet's main that recognition and pre-training share."""

import argparse
import logging
from pathlib import Path

from bilevel.espnet.config import read_yaml


def stats_options(config: Path, out_dir: Path) -> list[str]:
    """Options of every collection of statistics."""
    options = ["--collect_stats", "true", "--config", str(config), "--output_dir", str(out_dir), "--ngpu", "0"]
    return [*options, "--normalize", "none"]  # what global_mvn needs is only being collected


def training_options(config: Path, args: argparse.Namespace, out_dir: Path, stats_dir: Path) -> list[str]:
    """Options of every training, which goes on where it stood; also sets up logging.

    Call it before anything can log: ESPnet's own set-up comes too late for what is checked before it, and prints the
    host's name.

    Args:
        config: The merged configuration.
        args: With seed and ngpu.
        out_dir: Folder of the training.
        stats_dir: Folder of its statistics.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    options = ["--config", str(config), "--output_dir", str(out_dir), "--resume", "true", "--seed", str(args.seed)]
    options += ["--ngpu", str(args.ngpu)]
    if args.ngpu > 1:
        options += ["--multiprocessing_distributed", "true"]
    if read_yaml(config).get("normalize") == "global_mvn":
        options += ["--normalize_conf", f"stats_file={stats_dir}/train/feats_stats.npz"]
    return options
