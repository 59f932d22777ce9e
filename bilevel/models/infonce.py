"""InfoNCE / CPC: tell the true future of an utterance from other utterances' frames."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilevel.models.counter_rng import uniform
from bilevel.models.masked_prediction import feature_std
from bilevel.models.output import Encode, LossOutput, at_least_float32


class Objective(nn.Module):
    """Contrastive prediction of the states of a future window from a context window.

    The encoder sees context and future as separate utterances (one call, stacked in the batch), so a full-context
    encoder cannot look at what it has to predict. From the last context state c, one linear map W is applied again
    and again, p_1 = W c, p_{k+1} = W p_k, and

        loss = mean over windows and k of  -log  s(p_k, z_k) / (s(p_k, z_k) + sum_n s(p_k, z_n)),
        s(p, z) = exp(cos(p, z) / tau)

    where z_k is the k-th state of the true future and z_n are `n_negatives` future states drawn from other utterances
    (from the same one only when the batch has no other).

    Args:
        feat_dim: Ignored; kept so that all objectives are built alike.
        encoder_dim: D.
        encoder_layers: Ignored.
        context_frames: Feature frames of context (2 s of 10 ms frames in BL-JUST's code).
        future_frames: Feature frames to predict (1 s).
        hop_frames: Distance of one window from the next (1 s).
        n_negatives: Negatives per prediction; bounds memory to O(N n_negatives D) instead of O((B T)^2).
        temperature: tau (0.1 in BL-JUST's code).
        detach_targets: Whether no gradient flows into z. The released code lets it flow; so does the default.
        min_frames: Shortest context or future that is used; subsampling encoders refuse shorter ones.

    References:
        CPC, arXiv 1807.03748, Eq. 4; BL-JUST, arXiv 2412.08548, lower level.
    Deviations:
        Negatives never come from neighbouring frames of the same future (the released code takes all B T frames).
        Utterances shorter than context + future are split in proportion instead of being dropped; only those of
        which a part would be shorter than `min_frames` are.
    """

    passes = 1.0

    def __init__(
        self,
        feat_dim: int,
        encoder_dim: int,
        encoder_layers: int = 0,
        context_frames: int = 200,
        future_frames: int = 100,
        hop_frames: int = 100,
        n_negatives: int = 64,
        temperature: float = 0.1,
        detach_targets: bool = False,
        min_frames: int = 8,
    ) -> None:
        super().__init__()
        self.predict = nn.Linear(encoder_dim, encoder_dim)
        self.context_frames = context_frames
        self.future_frames = future_frames
        self.hop_frames = hop_frames
        self.n_negatives = n_negatives
        self.temperature = temperature
        self.detach_targets = detach_targets
        self.min_frames = min_frames

    def windows(self, lens: Tensor) -> list[tuple[int, int, int, int]]:
        """(utterance, start, context length, future length) of every window, from the (B,) lengths."""
        total = self.context_frames + self.future_frames
        found = []
        for i, n_frames in enumerate(lens.tolist()):
            if n_frames < total:
                context = n_frames * self.context_frames // total
                if min(context, n_frames - context) >= self.min_frames:
                    found.append((i, 0, context, n_frames - context))
            else:
                starts = range(0, n_frames - total + 1, self.hop_frames)
                found += [(i, start, self.context_frames, self.future_frames) for start in starts]
        return found

    def all_labels(self, feats: Tensor, lens: Tensor, encode: Encode) -> dict[str, tuple[Tensor, Tensor]]:
        """None: this objective makes no labels of its own."""
        return {}

    def forward(
        self, feats: Tensor, lens: Tensor, seeds: Tensor, encode: Encode, targets: Tensor | None = None
    ) -> LossOutput:
        """Loss on one batch, with one pass of the encoder; arguments as in `bestrq`, seeds decide the negatives."""
        windows = self.windows(lens)
        if not windows:
            # Nothing to predict. Loss and names as ever, so that all processes of a training stay in step.
            zero = 0.0 * self.predict.weight.sum()
            stats = dict.fromkeys(("ssl_acc", "ssl_feature_std"), zero.detach())
            return LossOutput(zero, stats, torch.zeros((), dtype=torch.long, device=feats.device))
        pieces = [feats[i, s : s + c] for i, s, c, _ in windows] + [
            feats[i, s + c : s + c + f] for i, s, c, f in windows
        ]
        piece_lens = torch.tensor([len(piece) for piece in pieces], device=feats.device)
        states, state_lens = encode(nn.utils.rnn.pad_sequence(pieces, batch_first=True), piece_lens)
        n = len(windows)
        last = state_lens[:n] - 1
        prediction = states[torch.arange(n, device=feats.device), last]
        future, future_lens = states[n:], state_lens[n:]
        if self.detach_targets:
            future = future.detach()
        n_steps = int(future_lens.max())
        predictions = []
        for _ in range(n_steps):
            prediction = self.predict(prediction)
            predictions.append(prediction)
        counted = torch.arange(n_steps, device=feats.device) < future_lens.unsqueeze(1)
        p = functional.normalize(at_least_float32(torch.stack(predictions, dim=1)[counted]), dim=-1)  # (N, D)
        z = functional.normalize(at_least_float32(future[:, :n_steps][counted]), dim=-1)
        owner = torch.tensor([i for i, *_ in windows], device=feats.device).repeat_interleave(future_lens)
        positive = (p * z).sum(-1, keepdim=True)
        negative = torch.einsum("nd,nkd->nk", p, z[self._negatives(owner, seeds)])
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        loss = functional.cross_entropy(logits, torch.zeros(len(p), dtype=torch.long, device=p.device))
        with torch.no_grad():
            stats = {
                "ssl_acc": (logits.argmax(-1) == 0).float().mean(),
                "ssl_feature_std": feature_std(z, torch.ones(len(z), device=z.device)),
            }
        return LossOutput(loss, stats, torch.tensor(len(p), device=p.device))

    def _negatives(self, owner: Tensor, seeds: Tensor) -> Tensor:
        """Indices (N, K) of the frames drawn as negatives: frames of other utterances than the row's `owner`."""
        n = len(owner)
        # Windows are listed by utterance, so the frames of an utterance are one block, which the draw leaps over.
        first = torch.searchsorted(owner, owner)
        size = torch.searchsorted(owner, owner, right=True) - first
        if int(size[0]) == n:
            # A batch of one utterance has no other source of negatives than its own other frames.
            first, size = torch.arange(n, device=owner.device), torch.ones_like(owner)
        draws = uniform(seeds.sum().view(1).to(owner.device), n * self.n_negatives).view(n, self.n_negatives)
        index = (draws * (n - size).unsqueeze(1)).long()
        index = index + size.unsqueeze(1) * (index >= first.unsqueeze(1))
        return index.clamp(max=n - 1)  # a batch of a single frame contrasts it with itself: no gradient
