"""Start a training from a pre-trained encoder: its configuration, its weights, and the proof that they fit."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevel.espnet.config import read_yaml

if TYPE_CHECKING:  # both take seconds to import, and a stage that is up to date needs neither
    from espnet2.tasks.abs_task import AbsTask
    from torch import Tensor

PARTS = ("frontend", "normalize", "preencoder", "encoder")
MIN_SHARE = 0.9
WEIGHTS = "latest.pth"  # of the last epoch: a schedule ends there, and losses on labels that move are no criterion


def adopted(exp_dir: Path) -> dict[str, Any]:
    """What the new model takes over from the configuration of a pre-training: everything up to the encoder.

    Raises:
        ValueError: The folder holds no finished training.
    """
    for name in ("config.yaml", WEIGHTS):
        if not (exp_dir / name).exists():
            raise ValueError(f"{exp_dir}: no {name}; expected the folder of a pre-training, stage 7 of ssl.sh")
    if not (exp_dir / "run.json").exists():
        raise ValueError(
            f"{exp_dir}: a training that has not ended; let it finish (stage 7 of ssl.sh), then start from it"
        )
    config = read_yaml(exp_dir / "config.yaml")
    return {key: config[key] for part in PARTS for key in (part, f"{part}_conf") if key in config}


def init_options(task: type["AbsTask"], options: list[str], exp_dir: Path, with_head: bool = False) -> list[str]:
    """ESPnet's `--init_param` for the weights of a pre-training, after a look at what matches.

    Prints for each part of the model how much of it is initialised and what is left out.

    Args:
        task: Task of the new training.
        options: Its command line.
        exp_dir: Folder of the pre-training.
        with_head: Take the self-supervised head as well, where it fits (a further round of pre-training).

    Raises:
        ValueError: Less than 90 % of the encoder's parameters have a partner of their name and shape.
    """
    import torch

    weights = (exp_dir / WEIGHTS).resolve()
    model = task.build_model(task.get_parser().parse_args(options))
    given = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
    parts = (*PARTS, "ssl") if with_head else PARTS
    table = {part: _match(part, model.state_dict(), given) for part in parts}
    for part, (matched, total, lacking) in table.items():
        if total:
            note = f"; not in it: {', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}" if lacking else ""
            print(f"pretrained: {part}: {matched:,} of {total:,} values from {weights}{note}", flush=True)
    left_out = sorted({key.split(".")[0] for key in given if not key.startswith(tuple(f"{p}." for p in parts))})
    print(f"pretrained: not taken: {', '.join(left_out) or 'nothing'}", flush=True)
    matched, total, lacking = table["encoder"]
    if matched < MIN_SHARE * total:
        raise ValueError(
            f"{weights}: fits {matched / total:.0%} of the encoder, expected at least {MIN_SHARE:.0%}; no partner of "
            f"equal shape for {', '.join(lacking[:5])}: set encoder and encoder_conf as in {exp_dir / 'config.yaml'}"
        )
    taken = [f"{weights}:{part}:{part}" for part, (matched, *_) in table.items() if matched]
    return ["--ignore_init_mismatch", "true", "--init_param", *taken]  # what does not match was named above


def _match(part: str, wanted: Mapping[str, "Tensor"], given: Mapping[str, "Tensor"]) -> tuple[int, int, list[str]]:
    """(values with a partner, all values, names without a partner) of one part of the model."""
    own = {key: value for key, value in wanted.items() if key.startswith(f"{part}.")}
    lacking = [key for key, value in own.items() if key not in given or given[key].shape != value.shape]
    total = sum(value.numel() for value in own.values())
    return total - sum(own[key].numel() for key in lacking), total, lacking


def add_init(task: type["AbsTask"], options: list[str], args: argparse.Namespace, with_head: bool = False) -> list[str]:
    """The options and, where `--pretrained` is given, those that initialise from it."""
    if args.pretrained is None:
        return options
    return options + init_options(task, options, args.pretrained, with_head)
