"""BEST-RQ: predict random-projection labels of masked speech."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilevel.models.masking import fill_with_noise, span_mask, valid_mask
from bilevel.models.output import Encode, LossOutput, at_least_float32
from bilevel.models.quantizer import RandomProjectionQuantizer


def normalise_utterances(feats: Tensor, lens: Tensor, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance per utterance and feature over the valid frames; padding becomes 0. (B, T, F)."""
    mask = valid_mask(lens, feats.size(1)).unsqueeze(-1)
    count = lens.view(-1, 1, 1).clamp(min=1)
    feats = feats.masked_fill(~mask, 0.0)
    mean = feats.sum(1, keepdim=True) / count
    centred = (feats - mean).masked_fill(~mask, 0.0)
    return centred / (centred.square().sum(1, keepdim=True) / count + eps).sqrt()


class BestRQ(nn.Module):
    """Masked prediction of random-projection labels.

    Labels come from the unmasked features, `stack` frames a label, so that labels and encoder states of a
    `stack`-fold subsampling encoder align one to one. Spans are masked on that grid, which keeps a label's frames
    together. With probability p per feature frame the grid uses 1 - (1 - p)^stack, so the coverage is unchanged.

        loss = mean over masked t of  -log softmax(W h_t)[y_t]

    Args:
        feat_dim: F, size of a feature frame.
        encoder_dim: D, size of an encoder state.
        stack: Feature frames per encoder state.
        codebook_size: V. The original has 8192.
        codebook_dim: h. The original has 16.
        p_mask: Probability that a span starts at a feature frame. The original has 0.01.
        mask_span_frames: Length of a span in feature frames (40 frames of 10 ms in the original).
        noise_std: Standard deviation of what replaces masked frames. The original has 0.1.
        seed: Seed of the frozen quantizer.

    Raises:
        ValueError: The span is no multiple of `stack`.

    References:
        BEST-RQ, arXiv 2202.01855.
    Deviations:
        Spans start on the grid of stacked frames, not on any frame (see above).
    """

    def __init__(
        self,
        feat_dim: int,
        encoder_dim: int,
        stack: int = 4,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        p_mask: float = 0.01,
        mask_span_frames: int = 40,
        noise_std: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mask_span_frames % stack:
            raise ValueError(f"mask_span_frames {mask_span_frames}: expected a multiple of stack {stack}")
        self.quantizer = RandomProjectionQuantizer(feat_dim * stack, codebook_dim, codebook_size, seed)
        self.head = nn.Linear(encoder_dim, codebook_size)
        self.stack = stack
        self.p_start = 1 - (1 - p_mask) ** stack
        self.span = mask_span_frames // stack
        self.noise_std = noise_std

    def labels(self, feats: Tensor, lens: Tensor) -> Tensor:
        """Labels (B, ceil(T / stack)) of features (B, T, F); do not depend on masks, padding or batch mates."""
        padded = functional.pad(normalise_utterances(feats, lens), (0, 0, 0, -feats.size(1) % self.stack))
        return self.quantizer(padded.view(feats.size(0), -1, self.stack * feats.size(2)))

    def mask(self, seeds: Tensor, lens: Tensor, n_frames: int) -> Tensor:
        """(B, ceil(T / stack)) bool mask on the grid of stacked frames."""
        n_groups = -(-n_frames // self.stack)
        return span_mask(seeds, -(-lens // self.stack), n_groups, self.p_start, self.span)

    def forward(self, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode) -> LossOutput:
        """Loss on one batch, with one call of the encoder.

        Args:
            feats: (B, T, F) normalised features.
            lens: (B,) valid frames.
            seeds: (B,) int64, one per utterance and visit; they decide masks and noise.
            encode: The shared encoder.

        Returns:
            Loss over masked frames, with accuracy, mask share and code perplexity.
        """
        labels = self.labels(feats, lens)
        mask = self.mask(seeds, lens, feats.size(1))
        frame_mask = mask.repeat_interleave(self.stack, dim=1)[:, : feats.size(1)]
        states, state_lens = encode(fill_with_noise(feats, frame_mask, seeds, self.noise_std), lens)
        n_states = min(states.size(1), mask.size(1))
        counted = mask[:, :n_states] & valid_mask(state_lens, n_states)
        # The head runs on the masked frames only: with 8192 codes it would otherwise dominate the step.
        logits = self.head(states[:, :n_states][counted])
        targets = labels[:, :n_states][counted]
        weight = counted.sum()
        loss = functional.cross_entropy(at_least_float32(logits), targets, reduction="sum") / weight.clamp(min=1)
        with torch.no_grad():
            usage = torch.bincount(targets, minlength=self.head.out_features).float()
            share = usage / usage.sum().clamp(min=1)
            stats = {
                "ssl_acc": (logits.argmax(-1) == targets).float().sum() / weight.clamp(min=1),
                "ssl_masked": weight / state_lens.sum(),
                "ssl_code_perplexity": torch.exp(-(share * share.clamp(min=1e-9).log()).sum()),
            }
        return LossOutput(loss, stats, weight)
