"""Options that statistics and training share."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bilevel.bin._cli import Parser
from bilevel.data.commit import commit
from bilevel.data.files import Stamp, write_text
from bilevel.espnet.config import digest, method_file, training_config


def add_set_options(parser: Parser) -> None:
    """The sets of a training on one kind of data."""
    parser.add_argument("--train_dir", type=Path, required=True, help="dump directory of the training set")
    parser.add_argument("--valid_dir", type=Path, required=True, help="dump directory of the validation set")


def add_config_options(parser: Parser) -> None:
    """Which configuration, and where statistics go."""
    parser.add_argument("--stats_dir", type=Path, required=True, help="statistics are written and read here")
    parser.add_argument("--config", type=Path, action="append", required=True, help="yaml; later ones win")
    parser.add_argument("--method", required=True, help="yaml of this name in --method_dir, merged on top")
    parser.add_argument("--method_dir", type=Path, required=True)
    parser.add_argument("--fs", type=int, default=16000, help="sampling rate in Hz; the front-end follows it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as optim_conf.lr=0.001")


def add_data_options(parser: Parser) -> None:
    """Which data and which configuration, for recognition."""
    add_set_options(parser)
    add_config_options(parser)
    parser.add_argument("--unlabelled_dir", type=Path, help="dump directory of the unlabelled training set")
    parser.add_argument("--pretrained", type=Path, help="experiment of bilevel pretrain to start from")
    parser.add_argument("--token_list", type=Path, required=True)
    parser.add_argument("--token_type", default="bpe", choices=("bpe", "char", "word"))
    parser.add_argument("--bpemodel", type=Path)


def add_run_options(parser: Parser) -> None:
    """Where a training goes, its seed and its GPUs."""
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--corpus", required=True, help="name for the report")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ngpu", type=int, default=0)


def merge_config(args: argparse.Namespace, method_first: bool = False) -> dict[str, Any]:
    """Configuration, method and overrides as one mapping; at other rates than 16 kHz the windows stay 25 and 10 ms.

    Args:
        args: With `--pretrained`, front-end to encoder are those of that experiment.
        method_first: Merge the method right after the first configuration: it names the objective that the others tune.
    """
    rate = {"fs": args.fs, "n_fft": 512 * args.fs // 16000, "win_length": args.fs // 40, "hop_length": args.fs // 100}
    front_end = [f"frontend_conf.{key}={value}" for key, value in rate.items()] if args.fs != 16000 else []
    method = method_file(args.method, args.method_dir)
    files = [args.config[0], method, *args.config[1:]] if method_first else [*args.config, method]
    if args.pretrained is None:
        return training_config(files, front_end + args.set)
    from bilevel.espnet.pretrained import adopted

    given, taken = training_config(files, []), adopted(args.pretrained)
    others = [key for key in taken if given.get(key) != taken[key]]
    if others:
        print(
            f"note: as in {args.pretrained}, not as configured: {', '.join(others)}; overrides still count", flush=True
        )
    return training_config([given, taken], args.set)


def write_config(merged: dict[str, Any], path: Path) -> Path:
    """The yaml file that ESPnet reads."""
    write_text(path, yaml.safe_dump(merged, sort_keys=False))
    return path


def write_facts(args: argparse.Namespace, merged: dict[str, Any]) -> None:
    """run.json: what the report groups by. A start from a pre-training is in the name, unless --label is given."""
    label = getattr(args, "label", None)
    if label is None:
        start = "" if args.pretrained is None else json.loads((args.pretrained / "run.json").read_text())["method"]
        frozen = " (encoder frozen)" if "encoder" in (merged.get("freeze_param") or []) else ""
        label = f"{args.method}{frozen} from {start}" if start else args.method
    facts = {"method": label, "corpus": args.corpus, "seed": args.seed, "config_sha256": digest(merged)}
    facts |= {"commit": commit()}
    write_text(args.exp_dir / "run.json", json.dumps(facts, indent=1) + "\n")


def write_result(exp_dir: Path, results: Sequence[Mapping[str, Any]] = ()) -> None:
    """result.json, which the report reads: facts, cost, any error rates, and the commits of training and of scoring."""
    facts, cost = (json.loads((exp_dir / name).read_text()) for name in ("run.json", "cost.json"))
    commits = dict.fromkeys((facts.get("commit", "unknown"), commit()))
    made = {"params": cost.pop("params"), "results": list(results), "cost": cost, "commit": ", ".join(commits)}
    write_text(exp_dir / "result.json", json.dumps(facts | made, indent=1) + "\n")


def check_resume(stamp: Stamp, exp_dir: Path) -> None:
    """Let a checkpoint be trained on with its own data and settings only, or for more epochs.

    Raises:
        ValueError: Something differs; the message lists all of it.
    """
    if not any((exp_dir / name).exists() for name in ("checkpoint.pth", "checkpoint.prev.pth")):
        return
    changes = stamp.changes()
    old, new = changes.get("max_epoch", (None, None))
    if changes.keys() == {"max_epoch"} and None not in (old, new) and new > old:
        print(
            f"note: {exp_dir} goes on to {new} instead of {old} epochs; its stages are now shares of {new}", flush=True
        )
    elif changes:
        listed = [name if name.startswith("content of") else f"{name}: {a} -> {b}" for name, (a, b) in changes.items()]
        raise ValueError(
            f"{exp_dir} holds a checkpoint of other data or settings ({'; '.join(listed)}): restore them, name this "
            f"run otherwise (--asr_tag, --ssl_tag or --st_tag), or delete {exp_dir} to train from the start"
        )
