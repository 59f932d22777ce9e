"""What a random-projection quantizer takes: normalised, stacked frames."""

from torch import Tensor
from torch.nn import functional

from bilevel.models.masking import valid_mask

NORMS = ("utterance", "layer")


def label_input(x: Tensor, lens: Tensor, norm: str = "utterance", stack: int = 1) -> Tensor:
    """Normalised frames, `stack` of them in a row; without a normalisation few codes would be used.

    Args:
        x: (B, T, F) features or states.
        lens: (B,) valid frames; what lies behind them has no influence.
        norm: "utterance": zero mean and unit variance per utterance and feature. "layer": of each stacked frame, as
            layer normalisation without affine parameters.
        stack: Frames per label; zeros fill the last group.

    Returns:
        (B, ceil(T / stack), stack F).

    Raises:
        ValueError: Unknown norm.
    """
    if norm not in NORMS:
        raise ValueError(f"norm of what is labelled {norm!r}: expected {' or '.join(NORMS)}")
    valid = valid_mask(lens, x.size(1)).unsqueeze(-1)
    x = normalise_utterances(x, lens) if norm == "utterance" else x.masked_fill(~valid, 0.0)
    stacked = functional.pad(x, (0, 0, 0, -x.size(1) % stack)).view(x.size(0), -1, stack * x.size(2))
    return stacked if norm == "utterance" else functional.layer_norm(stacked, stacked.shape[-1:])


def normalise_utterances(x: Tensor, lens: Tensor, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance per utterance and feature over the valid frames; padding becomes 0. (B, T, F)."""
    mask = valid_mask(lens, x.size(1)).unsqueeze(-1)
    count = lens.view(-1, 1, 1).clamp(min=1)
    x = x.masked_fill(~mask, 0.0)
    mean = x.sum(1, keepdim=True) / count
    centred = (x - mean).masked_fill(~mask, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count + eps).sqrt()
