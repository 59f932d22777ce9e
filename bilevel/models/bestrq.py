"""BEST-RQ: predict random-projection labels of masked speech."""

from torch import Tensor, nn

from bilevel.models.frames import label_input
from bilevel.models.masked_prediction import cross_entropy, encode_masked, prediction_stats
from bilevel.models.masking import Masking
from bilevel.models.output import Encode, LossOutput
from bilevel.models.quantizer import RandomProjectionQuantizer


class Objective(nn.Module):
    """Masked prediction of random-projection labels.

    Labels come from the unmasked features, `stack` frames a label, so that labels and encoder states of a
    `stack`-fold subsampling encoder align one to one:

        loss = mean over masked t and codebooks c of  -log softmax(W_c h_t)[y_tc]

    Args:
        feat_dim: F, size of a feature frame.
        encoder_dim: D, size of an encoder state.
        encoder_layers: Ignored; all objectives are built alike.
        stack: Feature frames per encoder state.
        codebook_size: V. The original has 8192.
        codebook_dim: h. The original has 16.
        n_codebooks: n, labels of a state, each with a projection and a softmax of its own. The original has 1.
        p_mask: Probability that a span starts at a feature frame. The original has 0.01. Variants: see `Masking`.
        mask_span_frames: Length of a span in feature frames (40 frames of 10 ms in the original).
        noise_std: Standard deviation of what replaces masked frames. The original has 0.1.
        mask_on_grid: Whether spans start on the grid of stacked frames.
        label_norm: How labels normalise the features: "utterance" or "layer" (see `label_input`).
        seed: Seed of the frozen quantizer.

    References:
        BEST-RQ, arXiv 2202.01855.
    Deviations:
        Spans start on the grid of stacked frames, not on any frame, unless `mask_on_grid` is false.
    """

    passes = 1.0

    def __init__(
        self,
        feat_dim: int,
        encoder_dim: int,
        encoder_layers: int = 0,
        stack: int = 4,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        n_codebooks: int = 1,
        p_mask: float = 0.01,
        mask_span_frames: int = 40,
        noise_std: float = 0.1,
        mask_on_grid: bool = True,
        label_norm: str = "utterance",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.masking = Masking(stack, p_mask, mask_span_frames, noise_std, mask_on_grid)
        self.quantizer = RandomProjectionQuantizer(
            feat_dim * stack, codebook_dim, codebook_size, seed, n_codebooks=n_codebooks
        )
        self.head = nn.Linear(encoder_dim, n_codebooks * codebook_size)
        self.codebook_size, self.label_norm = codebook_size, label_norm

    def labels(self, feats: Tensor, lens: Tensor) -> Tensor:
        """Labels (B, ceil(T / stack)[, n]) of features (B, T, F); do not depend on masks, padding or batch mates."""
        return self.quantizer(label_input(feats, lens, self.label_norm, self.masking.stack))

    def all_labels(self, feats: Tensor, lens: Tensor, encode: Encode) -> dict[str, tuple[Tensor, Tensor]]:
        """Labels (B, T') by kind with their (B,) lengths, for probing: `anchor`, those of the first codebook."""
        labels = self.labels(feats, lens)
        return {"anchor": (labels if labels.dim() == 2 else labels[..., 0], -(-lens // self.masking.stack))}

    def forward(
        self, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode, targets: Tensor | None = None
    ) -> LossOutput:
        """Loss on one batch, with one pass of the encoder.

        Args:
            feats: (B, T, F) features.
            lens: (B,) valid frames.
            seeds: (B,) int64, one per utterance and visit; they decide masks and noise.
            encode: The shared encoder.
            targets: Ignored; the labels are the objective's own.

        Returns:
            Loss over masked frames, with accuracy, mask share, label perplexity and spread of the states.
        """
        encoded = encode_masked(self.masking, feats, lens, seeds, encode)
        # Head and quantizer run on the masked frames only: with 8192 codes they would otherwise dominate the step.
        rows = encoded.counted
        labels = self.quantizer(rows.pick(label_input(feats, lens, self.label_norm, self.masking.stack)))
        logits = self.head(rows.pick(encoded.states)).view(*labels.shape, self.codebook_size)
        loss = cross_entropy(logits, labels, rows)
        return LossOutput(loss, prediction_stats(encoded, logits, labels), rows.count)
