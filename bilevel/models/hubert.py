"""HuBERT: predict given frame labels of masked speech."""

from torch import Tensor, nn

from bilevel.models.masked_prediction import cross_entropy, encode_masked, prediction_stats
from bilevel.models.masking import Masking, valid_mask
from bilevel.models.output import Encode, LossOutput
from bilevel.models.rows import choose

IGNORED = -1
MAX_DIFFERENCE = 1


class Objective(nn.Module):
    """Masked prediction of labels that another model gave, for instance units of an earlier round.

        loss = mean over masked t of  -log softmax(W h_t)[y_t]  +  w_unmasked (the same over unmasked t)

    Args:
        feat_dim: Ignored; all objectives are built alike.
        encoder_dim: D, size of an encoder state.
        encoder_layers: Ignored.
        codebook_size: Number of labels.
        w_unmasked: Weight of the loss at unmasked frames (0 in the paper).
        stack: Feature frames per encoder state; spans are masked on that grid.
        p_mask: Probability that a span starts at a feature frame. Variants: see `Masking`.
        mask_span_frames: Length of a span in feature frames.
        noise_std: Standard deviation of what replaces masked frames.
        mask_on_grid: Whether spans start on the grid of stacked frames.

    References:
        HuBERT, arXiv 2106.07447, section 3.
    Deviations:
        A linear softmax instead of cosines with label embeddings, and BEST-RQ's masks, so that the targets are all that
        differs from `bestrq`.
    """

    passes = 1.0

    def __init__(
        self,
        feat_dim: int,
        encoder_dim: int,
        encoder_layers: int = 0,
        codebook_size: int = 500,
        w_unmasked: float = 0.0,
        stack: int = 4,
        p_mask: float = 0.01,
        mask_span_frames: int = 40,
        noise_std: float = 0.1,
        mask_on_grid: bool = True,
    ) -> None:
        super().__init__()
        self.masking = Masking(stack, p_mask, mask_span_frames, noise_std, mask_on_grid)
        self.head = nn.Linear(encoder_dim, codebook_size)
        self.codebook_size, self.w_unmasked = codebook_size, w_unmasked

    def all_labels(self, feats: Tensor, lens: Tensor, encode: Encode) -> dict[str, tuple[Tensor, Tensor]]:
        """None: this objective makes no labels of its own."""
        return {}

    def forward(
        self, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode, targets: Tensor | None = None
    ) -> LossOutput:
        """Loss on one batch, with one pass of the encoder.

        Args:
            feats: (B, T, F) features.
            lens: (B,) valid frames.
            seeds: (B,) int64, one per utterance and visit; they decide masks and noise.
            encode: The shared encoder.
            targets: (B, T'') int64, one label per encoder state, padded with -1. States without a label do not count.

        Returns:
            Loss, with accuracy, mask share, label perplexity and spread of the states, all over masked frames.

        Raises:
            ValueError: No targets, labels outside the classes, or an utterance whose number of labels differs from
                that of its states by more than 1.
        """
        encoded = encode_masked(self.masking, feats, lens, seeds, encode)
        self._check(targets, encoded.states, encoded.lens)
        targets = nn.functional.pad(targets, (0, encoded.states.size(1)), value=IGNORED)
        targets = targets[:, : encoded.states.size(1)]
        rows = encoded.counted
        rows = rows._replace(weight=rows.weight * (rows.pick(targets) != IGNORED))
        encoded = encoded._replace(counted=rows)
        labels = rows.pick(targets).clamp(min=0)
        logits = self.head(rows.pick(encoded.states))
        loss = cross_entropy(logits, labels, rows)
        if self.w_unmasked:
            rest = valid_mask(encoded.lens, targets.size(1)) & (targets != IGNORED)
            rest[rows.utterances, rows.frames] = False
            others = choose(rest, rest, seeds.to(rest.device))
            unmasked = cross_entropy(self.head(others.pick(encoded.states)), others.pick(targets), others)
            loss = loss + self.w_unmasked * unmasked
        return LossOutput(loss, prediction_stats(encoded, logits, labels), rows.count)

    def _check(self, targets: Tensor | None, states: Tensor, state_lens: Tensor) -> None:
        if targets is None:
            raise ValueError("hubert: no targets; expected (B, T') frame labels in the batch, padded with -1")
        shapes = f"hubert: targets {tuple(targets.shape)} for states {tuple(states.shape)}"
        if len(targets) != len(states):
            raise ValueError(f"{shapes}: expected one row of labels for each utterance")
        n_labels = (targets != IGNORED).sum(1)
        apart = (n_labels - state_lens).abs()
        if int(apart.max()) > MAX_DIFFERENCE:
            worst = int(apart.argmax())
            raise ValueError(
                f"{shapes}; utterance {worst} of the batch has {int(n_labels[worst])} labels for "
                f"{int(state_lens[worst])} encoder states, expected equal numbers or {MAX_DIFFERENCE} apart. Make the "
                "labels at the encoder's frame rate"
            )
        if int(targets.max()) >= self.codebook_size or int(targets.min()) < IGNORED:
            raise ValueError(
                f"hubert: labels {int(targets.min())}..{int(targets.max())}: expected 0..{self.codebook_size - 1} "
                f"(codebook_size), and {IGNORED} as padding"
            )
