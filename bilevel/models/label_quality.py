"""How much frame labels say about phones or characters."""

from collections.abc import Iterable

import torch
from torch import Tensor


def counts(pairs: Iterable[tuple[Tensor, Tensor]], n_units: int, n_labels: int) -> Tensor:
    """Contingency table (n_units, n_labels) int64 of (units, labels) pairs of equal length, frame by frame."""
    table = torch.zeros(n_units * n_labels, dtype=torch.long)
    for units, labels in pairs:
        table += torch.bincount(units.cpu() * n_labels + labels.cpu(), minlength=len(table))
    return table.view(n_units, n_labels)


def quality(table: Tensor) -> dict[str, float]:
    r"""Agreement of labels z with units y (phones, characters) from their joint counts.

        unit_purity   = sum_z max_y p(y, z)       how well the best unit of each label predicts the unit
        label_purity  = sum_y max_z p(y, z)       how well the best label of each unit predicts the label
        pnmi          = I(y; z) / H(y)            share of the unit's information that the label carries
        perplexity    = exp H(z)                  how many labels are in use

    Args:
        table: (units, labels) counts, not all zero.

    References:
        HuBERT, arXiv 2106.07447, section 4.4.
    """
    joint = table.double() / table.sum()
    unit, label = joint.sum(1), joint.sum(0)
    information = _entropy(unit) + _entropy(label) - _entropy(joint)
    return {
        "unit_purity": float(joint.max(0).values.sum()),
        "label_purity": float(joint.max(1).values.sum()),
        "pnmi": float(information / _entropy(unit)) if _entropy(unit) > 0 else 0.0,
        "perplexity": float(_entropy(label).exp()),
    }


def _entropy(p: Tensor) -> Tensor:
    """In nats."""
    return -(p * p.clamp(min=1e-300).log()).sum()
