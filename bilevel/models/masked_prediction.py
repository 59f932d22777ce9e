"""What objectives share that predict labels of masked frames: which states count, the loss there, what is logged."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bilevel.models.masking import Masking, valid_mask
from bilevel.models.output import Encode, at_least_float32

MAX_DIFFERENCE = 2  # states that convolutions lose at the end


class Encoded(NamedTuple):
    """Encoder states of masked features.

    Attributes:
        states: (B, T', D).
        lens: (B,) valid states.
        counted: (B, T') bool, True at valid states of masked frames: the only ones with a loss.
    """

    states: Tensor
    lens: Tensor
    counted: Tensor


def encode_masked(masking: Masking, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode) -> Encoded:
    """One pass of the whole encoder over masked features (B, T, F).

    Encoder and labels may disagree about the last, incomplete groups of frames; T' is the shorter of the two.

    Raises:
        ValueError: Their frame rates differ.
    """
    hidden, mask = masking.hide(feats, lens, seeds)
    states, state_lens = encode(hidden, lens)
    if abs(states.size(1) - mask.size(1)) > MAX_DIFFERENCE:
        raise ValueError(
            f"{feats.size(1)} frames: {states.size(1)} encoder states, but {mask.size(1)} labels; set ssl_conf stack "
            f"({masking.stack}) to the encoder's subsampling"
        )
    n_states = min(states.size(1), mask.size(1))
    return Encoded(states[:, :n_states], state_lens, mask[:, :n_states] & valid_mask(state_lens, n_states))


def pick(counted: Tensor, values: Tensor) -> Tensor:
    """Rows of values (B, >= T', ...) at the counted states: (N, ...)."""
    return values[:, : counted.size(1)][counted]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log softmax(logits)[label] in at least float32; 0 with a gradient when nothing is counted.

    Args:
        logits: (..., V).
        labels: (...) int64.
    """
    rows = at_least_float32(logits).flatten(0, -2)
    return functional.cross_entropy(rows, labels.flatten(), reduction="sum") / max(1, labels.numel())


@torch.no_grad()
def prediction_stats(encoded: Encoded, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What every such objective logs: accuracy, share of counted states, use of the labels, spread of the states.

    Args:
        encoded: Encoder states.
        logits: (N, V), or (N, n, V) for n labels a state.
        labels: (N), or (N, n).
    """
    return {
        "ssl_acc": (logits.max(-1).indices == labels).float().sum() / max(1, labels.numel()),
        "ssl_masked": encoded.counted.sum() / encoded.lens.sum(),
        "ssl_label_perplexity": perplexity(labels, logits.size(-1)),
        "ssl_feature_std": feature_std(pick(encoded.counted, encoded.states)),
    }


def perplexity(labels: Tensor, n_labels: int) -> Tensor:
    """Exp of the entropy of the labels (N), or its mean over columns (N, n): 1 for a single label, V for all alike."""
    columns = labels.unsqueeze(-1).flatten(1).T
    usage = torch.zeros(len(columns), n_labels, device=labels.device)
    usage.scatter_add_(1, columns, torch.ones_like(columns, dtype=usage.dtype))
    share = usage / max(1, labels.size(0))
    return torch.special.entr(share).sum(-1).exp().mean()


def feature_std(states: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation over rows (N, D): 0 for states that have collapsed to a point."""
    if not len(states):
        return torch.zeros((), device=states.device)
    return at_least_float32(states).std(dim=0, correction=0).mean()
