"""How self-supervised objectives are found: drop a module with a class `Objective` here.

    objective = Objective(feat_dim, encoder_dim, encoder_layers, **conf)
    output = objective(feats, lens, seeds, encode, targets=None)        # a LossOutput
    objective.all_labels(feats, lens, encode)                           # kind -> ((B, T') labels, (B,) lengths)
    objective.passes                                                    # float, what a batch costs

feats (B, T, F) and lens (B,) are features; seeds (B,) int64 decide everything random; `encode` is the shared encoder
(`bilevel.models.output.Encode`); targets (B, T') are frame labels from outside, for those who take them. The unit of
`passes` is one forward and backward pass of the whole encoder over the batch; a forward pass alone is a third of it.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

_SIZES = ("feat_dim", "encoder_dim", "encoder_layers")


def names() -> list[str]:
    """Names of all objectives in `bilevel.models`, sorted."""
    package = importlib.import_module(__package__)
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return sorted(n for n in found if hasattr(importlib.import_module(f"{__package__}.{n}"), "Objective"))


def build(
    name: str, feat_dim: int, encoder_dim: int, encoder_layers: int, conf: Mapping[str, Any] | None = None
) -> nn.Module:
    """An objective by the name of its module.

    Args:
        name: One of `names()`.
        feat_dim: F, size of a feature frame.
        encoder_dim: D, size of an encoder state.
        encoder_layers: Blocks of the encoder; 0 when it cannot stop after a block.
        conf: The objective's own arguments.

    Raises:
        ValueError: Unknown objective or argument; the message lists the choices.
    """
    choices = names()
    if name not in choices:
        near = _nearest(name, choices)
        raise ValueError(f"unknown objective {name!r}; the nearest one is {near!r}, all: {', '.join(choices)}")
    cls = importlib.import_module(f"{__package__}.{name}").Objective
    known = [key for key in inspect.signature(cls).parameters if key not in _SIZES]
    for key in conf or {}:
        if key not in known:
            raise ValueError(
                f"objective {name}: unknown argument {key!r}; the nearest one is {_nearest(key, known)!r}, "
                f"all: {', '.join(known)}"
            )
    return cls(feat_dim, encoder_dim, encoder_layers, **(conf or {}))


def _nearest(word: str, choices: list[str]) -> str:
    return difflib.get_close_matches(str(word), choices, n=1, cutoff=0.0)[0]
