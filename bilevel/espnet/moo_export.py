"""One objective of a multi-objective training as a plain recognition model of ESPnet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from espnet2.tasks.asr import ASRTask

import bilevel.espnet.task  # noqa: F401  enters our encoder and front-end into ESPnet's registries
from bilevel.data.files import atomic_path, write_text
from bilevel.espnet.config import read_yaml
from bilevel.espnet.moo_task import head_conf
from bilevel.espnet.pretrained import PARTS


def export(exp_dir: Path, model: str, objective: str) -> tuple[Path, Path]:
    """Write EXP_DIR/<objective>/{config.yaml,<model>}: front-end to encoder, and the objective's head.

    They are what ESPnet's `asr_inference` and `Speech2Text` take, for recognition and translation alike.

    Args:
        exp_dir: Folder of the training.
        model: Weights in it.
        objective: Which one.

    Returns:
        The two files.

    Raises:
        ValueError: No such training or objective.
    """
    for name in ("config.yaml", model):
        if not (exp_dir / name).exists():
            raise ValueError(f"{exp_dir / name}: no such file; run stage 11, or name other weights")
    config, weights = read_yaml(exp_dir / "config.yaml"), (exp_dir / model).resolve()
    if objective not in config["streams"] or "tokens" not in config["streams"][objective]:
        there = ", ".join(name for name, stream in config["streams"].items() if "tokens" in stream)
        raise ValueError(f"{exp_dir}: no objective {objective} with text; expected one of {there}")
    files = exp_dir / objective / "config.yaml", exp_dir / objective / model
    write_text(files[0], yaml.safe_dump(single_config(config, objective), sort_keys=False))
    with atomic_path(files[1]) as temporary:
        torch.save(single_state(torch.load(weights, map_location="cpu", weights_only=True), objective), temporary)
    return files


def single_config(config: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """Configuration of ESPnet's recognition task."""
    stream, head = config["streams"][objective], head_conf(config["heads"], objective)
    own = {key: config.get(key) for part in (*PARTS, "specaug") for key in (part, f"{part}_conf")}
    own |= {"token_list": stream["tokens"], "token_type": stream["token_type"], "bpemodel": stream.get("bpemodel")}
    own |= {"model": "espnet", "input_size": config["input_size"], "init": None}
    defaults = ASRTask.get_parser().parse_args(["--output_dir", "."])  # get_default_config would read our command line
    return vars(defaults) | own | head


def single_state(state: Mapping[str, torch.Tensor], objective: str) -> dict[str, torch.Tensor]:
    """Weights of the shared parts and of one head, under ESPnet's names."""
    head = f"heads.{objective}."
    shared = {key: value for key, value in state.items() if not key.startswith(("heads.", "ssl."))}
    return shared | {key.removeprefix(head): value for key, value in state.items() if key.startswith(head)}
