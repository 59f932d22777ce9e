"""ESPnet's main with the pre-training task, run in this process."""

import argparse
from pathlib import Path

from bilevel.data.files import write_lines
from bilevel.data.sources import write_source_shapes
from bilevel.data.tables import read_optional
from bilevel.espnet.config import read_yaml
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.launch import stats_options, training_options

_STEP = ("grad_norm_lower", "grad_norm", "clip", "skipped", "passes")
_OBJECTIVE = ("acc", "feature_std", "loss_anchor", "loss_enhanced", "agreement")
_LABELS = ("label_perplexity", "enhanced_perplexity", "enhanced_entropy", "noise_flips")
_TRAIN_CURVES = {"ssl_loss": "train_lower_loss", "optim0_lr0": "lr"} | {
    name: name for name in (*_STEP, *(f"ssl_{signal}" for signal in (*_OBJECTIVE, *_LABELS)))
}
_VALID_CURVES = {"ssl_loss": {"ssl_loss": "valid_lower_loss", "ssl_acc": "valid_ssl_acc"}}


def write_shapes(args: argparse.Namespace) -> list[str]:
    """Shape files of the sources and of the validation set, from stored lengths: no audio is opened.

    Returns:
        Names of the sources.
    """
    shapes = DumpSet(args.train_dir).speech_shapes()
    write_lines(args.stats_dir / "train" / "speech_shape", shapes)
    write_lines(args.stats_dir / "valid" / "speech_shape", DumpSet(args.valid_dir).speech_shapes())
    table = {} if args.pool_sources else read_optional(args.train_dir / "utt2source")
    return write_source_shapes(shapes, table, args.stats_dir / "sources")


def collect_stats(config: Path, args: argparse.Namespace) -> None:
    """Stage 6: lengths, and mean and variance of the training features where the configuration needs them."""
    sources = write_shapes(args)
    print(f"sources: {', '.join(sources)}", flush=True)
    if read_yaml(config).get("normalize") != "global_mvn":
        return
    from bilevel.espnet.ssl_task import BilevelSSLTask

    BilevelSSLTask.main(cmd=stats_options(config, args.stats_dir) + _data_options(args))


def pretrain(config: Path, args: argparse.Namespace) -> None:
    """Stage 7: pre-train or resume; then write curves and cost beside the models."""
    options = training_options(config, args, args.exp_dir, args.stats_dir)
    from bilevel.espnet.pretrained import add_init
    from bilevel.espnet.record import record
    from bilevel.espnet.ssl_task import BilevelSSLTask

    options += [*_data_options(args), "--source_shape_dir", str(args.stats_dir / "sources")]
    options = add_init(BilevelSSLTask, options, args, with_head=True)
    BilevelSSLTask.main(cmd=options)
    record(args.exp_dir, BilevelSSLTask, _TRAIN_CURVES, _VALID_CURVES, prefixes=("mix_", "ssl_loss_"))


def _data_options(args: argparse.Namespace) -> list[str]:
    options: list[str] = []
    for split, folder in (("train", args.train_dir), ("valid", args.valid_dir)):
        dump = DumpSet(folder)
        option = f"--{split}_data_path_and_name_and_type"
        options += [option, f"{dump.scp},speech,{dump.type}"]
        if args.targets_dir:
            options += [option, f"{args.targets_dir / folder.name},targets,text_int"]
        options += [f"--{split}_shape_file", str(args.stats_dir / split / "speech_shape")]
    if dump.input_size() is not None:
        options += ["--input_size", str(dump.input_size())]
    return options
