"""From recipe files and options to the one yaml file that a training is run with."""

import contextlib
import copy
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def merge(base: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overlaid with `delta`; nested mappings merge key by key.

    When the delta names another class for X (say another encoder), the base's X_conf belongs to the old class and is
    dropped.
    """
    merged = copy.deepcopy(dict(base))
    for key, value in delta.items():
        if f"{key}_conf" in merged and merged.get(key) != value:
            merged.pop(f"{key}_conf")
    for key, value in delta.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else copy.deepcopy(value)
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml mapping; only plain types, tags are refused.

    Raises:
        ValueError: The file is no mapping, or has a tag or a syntax error; the message names it.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; only plain yaml is read") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected key: value lines, found {type(loaded).__name__}")
    return loaded


def method_file(name: str, folder: Path) -> Path:
    """The yaml of a method, found by its name.

    Raises:
        ValueError: No such method; the message lists the choices.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if not names:
        raise ValueError(f"{folder} holds no yaml: expected one a method, such as conf/method of the template")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"method {name!r}: expected one of {', '.join(names)}; the nearest one is {near}")
    return folder / f"{name}.yaml"


def training_config(files: Sequence[Path | Mapping[str, Any]], overrides: Sequence[str]) -> dict[str, Any]:
    """Merge files (or mappings) in order, then `key=value` overrides; dots go deeper: `optim_conf.lr=0.001`."""
    config: dict[str, Any] = {}
    for file in files:
        config = merge(config, file if isinstance(file, Mapping) else read_yaml(file))
    for text in overrides:
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"override {text!r}: expected key=value")
        try:
            delta: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"override {text!r}: {' '.join(str(error).split())}; expected a yaml value") from None
        if isinstance(delta, str):
            # YAML 1.1 takes 1e-3 for a word.
            with contextlib.suppress(ValueError):
                delta = float(delta)
        for key in reversed(name.split(".")):
            delta = {key: delta}
        config = merge(config, delta)
    return config


def digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
