"""Curves and cost of a training, for the report."""

import argparse
import json
import math
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import humanfriendly
import torch
from espnet2.tasks.abs_task import AbsTask
from espnet2.train.reporter import Reporter

from bilevel.data.files import write_lines, write_text


def record(
    out_dir: Path,
    task: type[AbsTask],
    train_curves: Mapping[str, str],
    valid_curves: Mapping[str, Mapping[str, str]],
    prefixes: tuple[str, ...] = (),
    valid_prefixes: tuple[str, ...] = (),
) -> None:
    """train.jsonl (curves by epoch) and cost.json (size and cost), from what ESPnet's reporter saved.

    The reporter goes through every resume, so its figures count all sessions; CPU time counts those that ended.

    Args:
        out_dir: Folder of the training.
        task: Its task.
        train_curves: The reporter's name of a statistic of training -> its name in train.jsonl.
        valid_curves: The same for validation, by level: a level's validation says nothing before its head is trained.
        prefixes: Statistics of training that begin so become curves under their own names, for instance one a source.
        valid_prefixes: Those of validation become curves with `valid_` before their names.
    """
    model, args = task.build_model_from_file(out_dir / "config.yaml", None, "cpu")
    reporter = Reporter()
    reporter.load_state_dict(torch.load(out_dir / "checkpoint.pth", map_location="cpu", weights_only=True)["reporter"])
    rows: list[dict[str, Any]] = []
    cost: dict[str, float] = dict.fromkeys(("updates", "passes", "audio_hours", "cpu_sec", "wall_sec"), 0.0)
    n_before, trained = 0, set()
    for epoch, stats in sorted(reporter.stats.items()):
        n_steps = stats["train"]["total_count"] - n_before
        n_before = stats["train"]["total_count"]
        row: dict[str, Any] = {"epoch": epoch, "update": n_before // args.accum_grad}
        row |= {new: stats["train"][old] for old, new in train_curves.items() if old in stats["train"]}
        row |= {name: value for name, value in stats["train"].items() if prefixes and name.startswith(prefixes)}
        trained |= {level for level in valid_curves if level in stats["train"]}  # and stays so while the level rests
        for level in trained:
            row |= {new: stats["valid"][old] for old, new in valid_curves[level].items() if old in stats["valid"]}
        row |= {f"valid_{k}": v for k, v in stats["valid"].items() if valid_prefixes and k.startswith(valid_prefixes)}
        rows.append(row)
        cost["updates"] += (1 - stats["train"]["skipped"]) * (n_steps // args.accum_grad)
        cost["passes"] += stats["train"]["passes"] * n_steps
        cost["audio_hours"] += stats["train"]["n_input"] * n_steps / input_per_sec(args) / 3600
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


def input_per_sec(args: argparse.Namespace) -> float:
    """Samples, or frames of 10 ms, in a second of input."""
    if args.input_size is not None:
        return 100.0
    return humanfriendly.parse_size(str(args.frontend_conf.get("fs", "16k")))


def count_params(model: torch.nn.Module) -> int:
    """Trainable parameters."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
