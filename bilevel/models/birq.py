"""BiRQ: the encoder's own lower layers give the labels, random-projection labels of the features anchor them."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilevel.models.counter_rng import uniform
from bilevel.models.frames import label_input
from bilevel.models.masked_prediction import (
    cross_entropy,
    encode_masked,
    feature_std,
    perplexity,
    prediction_stats,
)
from bilevel.models.masking import Masking
from bilevel.models.output import Encode, LossOutput, at_least_float32
from bilevel.models.quantizer import RandomProjectionQuantizer
from bilevel.models.rows import Rows

GUMBEL_STREAM = 1


class Objective(nn.Module):
    r"""Bilevel self-labelling: fit the encoder's own labels among what fits the random-projection labels.

        upper   F(theta) = mean over masked t of  - sum_j ye_tj log q_tj     (enhanced labels)
        lower   G(theta) = mean over masked t of  - log q_t[y_t]             (anchoring labels, Eq. 2: BEST-RQ's)
        min F over near-minimisers of G (Eq. 8), as  min w_enhanced F + w_anchor (G - min G)  (Eq. 9)

    q = softmax(W Enc(masked x)) and, from the unmasked features, with frozen projection A and codes c (Eq. 4):

        z  = norm(Enc_{1..k}(x)),   s_j = logit_scale cos(A z, c_j)
        ye = softmax((s + Gumbel noise) / tau)

    min G does not depend on theta, so a step is that of the weighted sum (Algorithm 1). The gradient of F flows through
    q *and* through ye into the blocks up to k; F alone would be smallest for constant labels, which is what the anchor
    is against. Passes: 1 + k / K of BEST-RQ's, or 1 + k / (3 K) with `detach_labels` or w_enhanced 0. Both graphs live
    at once.

    Masks, noise and Gumbel noise are functions of an utterance's seed and of the position.

    Args:
        feat_dim: F, size of a feature frame.
        encoder_dim: D, size of an encoder state.
        encoder_layers: K, blocks of the encoder.
        label_layer: k in 1..K-1. None: round(0.7 K), the paper's rule.
        w_enhanced: Weight of F. With 0 the labels are still watched, without a graph.
        w_anchor: Weight of G.
        tau: Temperature of the Gumbel softmax.
        logit_scale: Factor of the cosines. With thousands of codes noise of standard deviation 1.28 drowns cosines in
            [-1, 1]: look at `ssl_enhanced_entropy` and sweep this first. Negative squared distances of unit vectors
            are 2 cos - 2, so they are `logit_scale: 2`.
        gumbel: Whether there is noise at all; without it ye is a tempered softmax.
        hard: Straight-through: ye is one-hot forward, and soft for the gradient.
        detach_labels: No gradient through ye: online HuBERT, not BiRQ; cheaper.
        label_dropout: Whether the pass that makes z keeps the encoder's dropout in training.
        z_norm: Normalisation of z, "layer" or "utterance" (see `label_input`). States share a large mean, which a norm
            of single states keeps: then all fall on a few codes.
        separate_head: A head of its own for enhanced labels.
        separate_codebook: Codes of their own for enhanced labels.
        stack: Feature frames per encoder state. This and what follows is as in `bestrq`.
        codebook_size: V.
        codebook_dim: h.
        p_mask: Probability that a span starts at a feature frame.
        mask_span_frames: Length of a span in feature frames.
        noise_std: Standard deviation of what replaces masked frames.
        mask_on_grid: Whether spans start on the grid of stacked frames.
        label_norm: How anchoring labels normalise the features.
        seed: Seed of the frozen quantizers; the anchoring labels are those of BEST-RQ with the same seed.

    Raises:
        ValueError: label_layer outside 1..K-1, or tau not above 0.

    References:
        BiRQ, arXiv 2509.15430, Eq. 2, 4, 8, 9, Algorithm 1. Gumbel softmax: arXiv 1611.01144.
    Deviations:
        Unknown in the paper, hence options: logit_scale, gumbel, hard, label_dropout, z_norm, separate_head,
        separate_codebook, and everything of the masks.
    """

    def __init__(
        self,
        feat_dim: int,
        encoder_dim: int,
        encoder_layers: int,
        label_layer: int | None = None,
        w_enhanced: float = 0.1,
        w_anchor: float = 2.4,
        tau: float = 0.5,
        logit_scale: float = 1.0,
        gumbel: bool = True,
        hard: bool = False,
        detach_labels: bool = False,
        label_dropout: bool = False,
        z_norm: str = "utterance",
        separate_head: bool = False,
        separate_codebook: bool = False,
        stack: int = 4,
        codebook_size: int = 8192,
        codebook_dim: int = 16,
        p_mask: float = 0.01,
        mask_span_frames: int = 40,
        noise_std: float = 0.1,
        mask_on_grid: bool = True,
        label_norm: str = "utterance",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if tau <= 0:
            raise ValueError(f"tau {tau}: expected a temperature above 0")
        self.label_layer = _label_layer(label_layer, encoder_layers)
        self.w_enhanced, self.w_anchor = w_enhanced, w_anchor
        # k of K blocks for the labels, of which the forward pass alone is a third.
        share = self.label_layer / encoder_layers
        self.passes = 1 + (share / 3 if detach_labels or w_enhanced == 0 else share)
        self.tau, self.logit_scale, self.gumbel, self.hard = tau, logit_scale, gumbel, hard
        self.detach_labels, self.label_dropout = detach_labels, label_dropout
        self.z_norm, self.label_norm = z_norm, label_norm
        self.masking = Masking(stack, p_mask, mask_span_frames, noise_std, mask_on_grid)
        self.quantizer = RandomProjectionQuantizer(feat_dim * stack, codebook_dim, codebook_size, seed)
        codes = None if separate_codebook else self.quantizer.codebook
        self.label_quantizer = RandomProjectionQuantizer(
            encoder_dim, codebook_dim, codebook_size, seed + 1, codebook=codes
        )
        self.head = nn.Linear(encoder_dim, codebook_size)
        self.enhanced_head = nn.Linear(encoder_dim, codebook_size) if separate_head else None

    def labels(self, feats: Tensor, lens: Tensor) -> Tensor:
        """Anchoring labels (B, ceil(T / stack)) of features (B, T, F): those of BEST-RQ."""
        return self.quantizer(label_input(feats, lens, self.label_norm, self.masking.stack))

    def all_labels(self, feats: Tensor, lens: Tensor, encode: Encode) -> dict[str, tuple[Tensor, Tensor]]:
        """Labels (B, T') by kind with their (B,) lengths, for probing: `anchor`, and `enhanced` without noise."""
        states, state_lens = encode(feats, lens, n_layers=self.label_layer, dropout=False)
        enhanced = self.label_quantizer(label_input(at_least_float32(states), state_lens, self.z_norm))
        anchor = self.labels(feats, lens), -(-lens // self.masking.stack)
        return {"anchor": anchor, "enhanced": (enhanced, state_lens)}

    def enhanced_scores(self, feats: Tensor, lens: Tensor, encode: Encode, counted: Rows) -> tuple[Tensor, Tensor]:
        """Logits of the enhanced labels at the counted states, before noise and temperature.

        Returns:
            s (N, V) and z (N, D).
        """
        with torch.no_grad() if self.detach_labels or self.w_enhanced == 0 else nullcontext():
            states, state_lens = encode(feats, lens, n_layers=self.label_layer, dropout=self.label_dropout)
            z = counted.pick(label_input(at_least_float32(states), state_lens, self.z_norm))
            return self.logit_scale * self.label_quantizer.scores(z), z

    def forward(
        self, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode, targets: Tensor | None = None
    ) -> LossOutput:
        """Loss on one batch: a pass over the masked features, and one through k blocks over the unmasked ones.

        Args:
            feats: (B, T, F) features.
            lens: (B,) valid frames.
            seeds: (B,) int64, one per utterance and visit; they decide masks, noise and Gumbel noise.
            encode: The shared encoder.
            targets: Ignored; the labels are the objective's own.

        Returns:
            Weighted loss over masked frames, with the statistics of BEST-RQ for the anchor, both losses, and for the
            enhanced labels the perplexity and agreement of the noise-free choice, the share of frames where noise
            chooses another code than that (near 1: the labels say nothing), and the mean entropy of ye.
        """
        encoded = encode_masked(self.masking, feats, lens, seeds, encode)
        rows = encoded.counted
        hidden = rows.pick(encoded.states)
        labels = self.quantizer(rows.pick(label_input(feats, lens, self.label_norm, self.masking.stack)))
        logits = self.head(hidden)
        anchor = cross_entropy(logits, labels, rows)
        # All that is V wide is computed at the counted frames only, and in at least float32.
        scores, z = self.enhanced_scores(feats, lens, encode, rows)
        noise = gumbel_noise(rows, scores) if self.gumbel else 0.0
        noisy = scores + noise
        soft = gumbel_softmax(noisy, self.tau, self.hard)
        enhanced_logits = logits if self.enhanced_head is None else self.enhanced_head(hidden)
        log_q = functional.log_softmax(at_least_float32(enhanced_logits), dim=-1)
        enhanced = rows.mean(-(soft * log_q).sum(-1))
        loss = self.w_enhanced * enhanced + self.w_anchor * anchor
        stats = prediction_stats(encoded, logits, labels)
        stats |= {"ssl_loss_enhanced": enhanced.detach(), "ssl_loss_anchor": anchor.detach()}
        stats |= _enhanced_stats(scores, noisy.detach(), self.tau, z, labels, rows)
        return LossOutput(loss, stats, rows.count)


def _label_layer(label_layer: int | None, encoder_layers: int) -> int:
    if label_layer is None:
        label_layer = round(0.7 * encoder_layers)
    if not 1 <= label_layer < encoder_layers:
        raise ValueError(
            f"label_layer {label_layer} of an encoder with {encoder_layers} blocks: expected one of "
            f"1..{encoder_layers - 1}, below the last block"
        )
    return label_layer


def gumbel_noise(rows: Rows, like: Tensor) -> Tensor:
    """Standard Gumbel noise -log(-log u), a function of the utterance's seed and the position.

    Args:
        rows: N states.
        like: (N, V), gives shape and type.
    """
    noise = torch.empty_like(like, requires_grad=False)
    n_rows = 64 if like.device.type == "cpu" else 4096  # at a time: bounds the int64 scratch of the generator
    for part, part_rows in zip(noise.split(n_rows), rows.seeds.split(n_rows), strict=True):
        # -log1p(-u) has the law of -log u and keeps its digits near 0, of which the large values are made.
        exponential = torch.log1p(-uniform(part_rows, like.size(1), GUMBEL_STREAM)).neg_()
        part.copy_(exponential.clamp_(min=2.0**-25).log_().neg_())
    return noise


def gumbel_softmax(scores: Tensor, tau: float, hard: bool) -> Tensor:
    """softmax(scores / tau) of noisy scores (N, V); with `hard` one-hot, and the gradient of the soft one."""
    soft = functional.softmax(scores / tau, dim=-1)
    if not hard:
        return soft
    chosen = functional.one_hot(soft.argmax(-1), soft.size(-1)).to(soft)
    return chosen + soft - soft.detach()


@torch.no_grad()
def _enhanced_stats(
    scores: Tensor, noisy: Tensor, tau: float, z: Tensor, labels: Tensor, rows: Rows
) -> dict[str, Tensor]:
    """Health of the enhanced labels. The choice is that without noise, which would hide a collapse of z.

    Args:
        scores: (N, V) without noise.
        noisy: (N, V) with noise.
        tau: Temperature of the soft labels.
        z: (N, D).
        labels: (N) anchoring labels.
        rows: What counts.
    """
    choice, log_soft = scores.argmax(-1), functional.log_softmax(noisy / tau, dim=-1)
    return {
        "ssl_enhanced_perplexity": perplexity(choice, scores.size(-1), rows.weight),
        "ssl_enhanced_entropy": rows.mean(-(log_soft.exp() * log_soft).sum(-1)),
        "ssl_noise_flips": rows.mean(choice != noisy.argmax(-1)),
        "ssl_agreement": rows.mean(choice == labels),
        "ssl_feature_std": feature_std(z, rows.weight),
    }
