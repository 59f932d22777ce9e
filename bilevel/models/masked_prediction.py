"""What objectives share that predict labels of masked frames: which states count, the loss there, what is logged."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bilevel.models.masking import Masking, valid_mask
from bilevel.models.output import Encode, at_least_float32
from bilevel.models.rows import Rows, choose

MAX_DIFFERENCE = 2  # states that convolutions lose at the end


class Encoded(NamedTuple):
    """Encoder states of masked features.

    Attributes:
        states: (B, T', D).
        lens: (B,) valid states.
        counted: The valid states of masked frames, N of them: the only ones with a loss.
    """

    states: Tensor
    lens: Tensor
    counted: Rows


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
    counted = choose(mask[:, :n_states], valid_mask(state_lens, n_states), seeds)
    return Encoded(states[:, :n_states], state_lens, counted)


def cross_entropy(logits: Tensor, labels: Tensor, rows: Rows) -> Tensor:
    """Mean over rows (and over n labels of each) of -log softmax(logits)[label], in at least float32.

    Args:
        logits: (N, V), or (N, n, V) for n labels a row.
        labels: (N) or (N, n), int64.
        rows: What counts.
    """
    losses = functional.cross_entropy(at_least_float32(logits).flatten(0, -2), labels.flatten(), reduction="none").view(
        labels.shape
    )
    return rows.mean(_by_row(losses))


@torch.no_grad()
def prediction_stats(encoded: Encoded, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """What every such objective logs: accuracy, share of counted states, use of the labels, spread of the states.

    Args:
        encoded: Encoder states.
        logits: (N, V), or (N, n, V) for n labels a state.
        labels: (N), or (N, n).
    """
    rows = encoded.counted
    return {
        "ssl_acc": rows.mean(_by_row((logits.max(-1).indices == labels).float())),
        "ssl_masked": rows.count / encoded.lens.sum(),
        "ssl_label_perplexity": perplexity(labels, logits.size(-1), rows.weight),
        "ssl_feature_std": feature_std(rows.pick(encoded.states), rows.weight),
    }


def _by_row(values: Tensor) -> Tensor:
    """Mean over the labels of a row: (N,) stays, (N, n) becomes (N,)."""
    return values.unsqueeze(-1).flatten(1).mean(1)


def perplexity(labels: Tensor, n_labels: int, weight: Tensor) -> Tensor:
    """Exp of the entropy of labels (N) of weights (N), or the mean over columns (N, n): 1 for one label, V at most."""
    columns = labels.unsqueeze(-1).flatten(1).T
    usage = torch.zeros(len(columns), n_labels, device=labels.device)
    usage.scatter_add_(1, columns, weight.expand_as(columns))
    share = usage / weight.sum().clamp(min=1)
    return torch.special.entr(share).sum(-1).exp().mean()


def feature_std(states: Tensor, weight: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation of rows (N, D) of weight (N): 0 for states at a single point."""
    states, weight = at_least_float32(states), weight.unsqueeze(1)
    total = weight.sum().clamp(min=1)
    centred = states - (weight * states).sum(0) / total
    return ((weight * centred.square()).sum(0) / total).sqrt().mean()
