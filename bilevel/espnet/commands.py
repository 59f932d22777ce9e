"""ESPnet's mains with our task, run in this process."""

import argparse
import json
import logging
import resource
from pathlib import Path
from typing import Any

import humanfriendly
import torch

from bilevel.data.files import write_lines, write_text
from bilevel.espnet.config import read_yaml
from bilevel.espnet.dump import DumpSet


def shared_options(args: argparse.Namespace, train: DumpSet, valid: DumpSet) -> list[str]:
    """Options of statistics and training alike."""
    options = ["--token_list", str(args.token_list), "--token_type", args.token_type]
    if args.bpemodel:
        options += ["--bpemodel", str(args.bpemodel)]
    options += train.data_options("train") + valid.data_options("valid")
    if train.input_size() is not None:
        options += ["--input_size", str(train.input_size())]
    return options


def collect_stats(config: Path, args: argparse.Namespace, out_dir: Path) -> None:
    """Stage 10: shapes of all data, and mean and variance of the training features."""
    from bilevel.espnet.task import BilevelASRTask

    train, valid = DumpSet(args.train_dir), DumpSet(args.valid_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    options = ["--collect_stats", "true", "--config", str(config), "--output_dir", str(out_dir), "--ngpu", "0"]
    options += ["--train_shape_file", str(train.lengths), "--valid_shape_file", str(valid.lengths)]
    options += ["--normalize", "none"]  # what global_mvn needs is only being collected
    BilevelASRTask.main(cmd=options + shared_options(args, train, valid))
    if args.unlabelled_dir:
        write_lines(out_dir / "unlabelled" / "speech_shape", DumpSet(args.unlabelled_dir).speech_shapes())


def train(config: Path, args: argparse.Namespace, out_dir: Path, stats_dir: Path) -> None:
    """Stage 11: train or resume; then write curves and cost beside the models."""
    # Before anything can log: ESPnet's own set-up comes too late for the check below, and prints the host's name.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from bilevel.espnet.ctc_check import check_ctc_fit
    from bilevel.espnet.task import BilevelASRTask

    train_set, valid = DumpSet(args.train_dir), DumpSet(args.valid_dir)
    options = ["--config", str(config), "--output_dir", str(out_dir), "--resume", "true", "--seed", str(args.seed)]
    options += ["--ngpu", str(args.ngpu), *shared_options(args, train_set, valid)]
    for split in ("train", "valid"):
        for name in ("speech_shape", "text_shape"):
            options += [f"--{split}_shape_file", str(stats_dir / split / name)]
    if args.unlabelled_dir:
        unlabelled = DumpSet(args.unlabelled_dir)
        options += ["--unlabelled_scp", str(unlabelled.scp), "--unlabelled_type", unlabelled.type]
        options += ["--unlabelled_shape_file", str(stats_dir / "unlabelled" / "speech_shape")]
    if args.ngpu > 1:
        options += ["--multiprocessing_distributed", "true"]
    if read_yaml(config).get("normalize") == "global_mvn":
        options += ["--normalize_conf", f"stats_file={stats_dir}/train/feats_stats.npz"]
    check_ctc_fit(options, train_set, stats_dir / "train" / "speech_shape", stats_dir / "ctc_too_long.txt")
    BilevelASRTask.main(cmd=options)
    _record(out_dir)


_SAME = ("gamma", "grad_norm_upper", "grad_norm_lower", "grad_norm", "clip", "skipped", "passes")
_TRAIN_CURVES = {"loss": "train_upper_loss", "ssl_loss": "train_lower_loss", "optim0_lr0": "lr"} | {
    name: name for name in (*_SAME, "ssl_acc", "ssl_code_perplexity")
}
_VALID_CURVES = {
    "loss": {"loss": "valid_upper_loss", "cer": "valid_cer", "acc": "valid_acc"}
    | {"cer_ctc": "valid_cer_ctc", "wer_ctc": "valid_wer_ctc"},
    "ssl_loss": {"ssl_loss": "valid_lower_loss"},
}


def _record(out_dir: Path) -> None:
    """train.jsonl (curves by epoch) and cost.json (size and cost), from what ESPnet's reporter saved.

    The reporter goes through every resume, so its figures count all sessions; CPU time counts those that ended.
    """
    from espnet2.train.reporter import Reporter

    from bilevel.espnet.task import BilevelASRTask, count_params

    model, args = BilevelASRTask.build_model_from_file(out_dir / "config.yaml", None, "cpu")
    reporter = Reporter()
    reporter.load_state_dict(torch.load(out_dir / "checkpoint.pth", map_location="cpu", weights_only=True)["reporter"])
    rows: list[dict[str, Any]] = []
    cost: dict[str, float] = dict.fromkeys(("updates", "passes", "audio_hours", "cpu_sec", "wall_sec"), 0.0)
    n_before, trained = 0, set()
    for epoch, stats in sorted(reporter.stats.items()):
        n_steps = stats["train"]["total_count"] - n_before
        n_before = stats["train"]["total_count"]
        row: dict[str, Any] = {"epoch": epoch, "update": n_before // args.accum_grad}
        row |= {new: stats["train"][old] for old, new in _TRAIN_CURVES.items() if old in stats["train"]}
        # A level's validation says nothing before its head is trained; after that, also while the level rests.
        trained |= {level for level in _VALID_CURVES if level in stats["train"]}
        for level in trained:
            row |= {new: stats["valid"][old] for old, new in _VALID_CURVES[level].items() if old in stats["valid"]}
        rows.append(row)
        cost["updates"] += (1 - stats["train"]["skipped"]) * (n_steps // args.accum_grad)
        cost["passes"] += stats["train"]["passes"] * n_steps
        cost["audio_hours"] += stats["train"]["n_input"] * n_steps / _input_per_sec(args) / 3600
        cost["wall_sec"] += sum(stats[split]["time"].total_seconds() for split in ("train", "valid"))
    write_lines(out_dir / "train.jsonl", [json.dumps(row) for row in rows])
    cost_file = out_dir / "cost.json"
    if cost_file.exists():
        cost["cpu_sec"] = json.loads(cost_file.read_text())["cpu_sec"]
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):  # children: loader workers, other GPUs' processes
        usage = resource.getrusage(who)
        cost["cpu_sec"] += usage.ru_utime + usage.ru_stime
    gpu_bytes = torch.cuda.max_memory_allocated() if args.ngpu else 0
    cost["peak_mem_mb"] = gpu_bytes / 2**20 or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cost |= {"params": count_params(model), "updates": round(cost["updates"]), "passes": round(cost["passes"])}
    write_text(cost_file, json.dumps(cost, indent=1) + "\n")


def _input_per_sec(args: argparse.Namespace) -> float:
    """Samples, or frames of 10 ms, in a second of input."""
    if args.input_size is not None:
        return 100.0
    return humanfriendly.parse_size(str(args.frontend_conf.get("fs", "16k")))
