"""The ASR model with a self-supervised level."""

import functools
import itertools
from typing import Any

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.torch_utils.device_funcs import force_gatherable
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from bilevel.espnet.encoder import encode_features, n_blocks
from bilevel.models import objective


class BilevelASRModel(ESPnetASRModel):
    """ESPnet's CTC/attention model whose encoder also feeds a self-supervised head.

    theta is front-end, normalisation and encoder; phi is CTC head and decoder; eta is the self-supervised head. Both
    levels see the same features through the same front-end; SpecAugment belongs to the upper level, masking to the
    lower one.

    `forward` is the only entry, for both levels, so that DDP's hooks see each of them.

    Args:
        ssl: Lower-level objective: the name of a module of `bilevel.models` with a class `Objective`.
        ssl_conf: Arguments of the objective.
        loss_per_token: Upper loss per token instead of per utterance. ESPnet sums CTC over an utterance's frames, so
            the meaning of gamma would depend on the length of the utterances.
        input_size: Dimension of extracted features; not needed with a front-end.
        kwargs: Arguments of ESPnetASRModel.

    Raises:
        ValueError: An unknown objective or argument of it, or a blank that is not unit 0.
    """

    def __init__(
        self,
        ssl: str = "bestrq",
        ssl_conf: dict[str, Any] | None = None,
        loss_per_token: bool = True,
        input_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.blank_id != 0 or self.token_list[0] != "<blank>":
            raise ValueError(f"token list starts with {self.token_list[0]!r}: unit 0 must be <blank> and nothing else")
        self.loss_per_token = loss_per_token
        self._wer_ctc: float | None = None
        # Characters and subwords spell out the space; lists of whole words do not.
        self._joint = "" if any("\u2581" in t or t == "<space>" for t in self.token_list) else " "
        feat_dim = input_size if self.frontend is None else self.frontend.output_size()
        self.ssl = objective.build(ssl, feat_dim, self.encoder.output_size(), n_blocks(self.encoder), ssl_conf)

    def upper_params(self) -> list[torch.nn.Parameter]:
        """Theta and phi: everything but the self-supervised head."""
        return [p for name, p in self.named_parameters() if not name.startswith("ssl.")]

    def lower_params(self) -> list[torch.nn.Parameter]:
        """Theta and eta: everything but the recognition heads."""
        heads = ("ctc.", "decoder.", "joint_network.")
        return [p for name, p in self.named_parameters() if not name.startswith(heads)]

    def forward(self, speech: Tensor, speech_lengths: Tensor, level: str = "upper", **batch: Any):
        """Loss of one level.

        Args:
            speech: (B, S) samples or (B, T, F) features.
            speech_lengths: (B,).
            level: "upper" takes text (B, L) and text_lengths (B,); "lower" takes seeds (B,) int64.
            batch: The rest of the batch.

        Returns:
            ESPnet's triple: loss, stats, weight. The weight is the number of tokens or of masked frames, so averages
            over batches and processes are exact.
        """
        if level == "lower":
            return self._lower(speech, speech_lengths, batch["seeds"])
        n_tokens = batch["text_lengths"].sum().view(1)  # of one dimension, as ESPnet gathers over processes
        loss, stats, n_utterances = super().forward(speech, speech_lengths, **batch)
        if not self.training:
            # The lower level on held-out speech, with fixed masks: shows its drift in the final stage.
            seeds = torch.arange(len(speech_lengths))
            stats["ssl_loss"] = self._lower(speech, speech_lengths, seeds)[1]["ssl_loss"]
            stats |= force_gatherable({"wer_ctc": self._wer_ctc}, speech.device)
        if not self.loss_per_token:
            return loss, stats, n_utterances
        factor = n_utterances.to(loss) / n_tokens.to(loss)  # a ratio of integers would be single precision
        stats |= {k: v * factor for k, v in stats.items() if k.startswith("loss") and v is not None}
        return loss * factor, stats, n_tokens.to(n_utterances)

    def _calc_ctc_loss(self, states: Tensor, state_lens: Tensor, text: Tensor, text_lens: Tensor):
        """ESPnet's, and in validation the word error rate of the best path."""
        if not self.training:
            paths = [row[:n] for row, n in zip(self.ctc.argmax(states).tolist(), state_lens.tolist(), strict=True)]
            hyps = [self._words([unit for unit, _ in itertools.groupby(path)]) for path in paths]
            refs = [self._words(row[:n]) for row, n in zip(text.tolist(), text_lens.tolist(), strict=True)]
            n_errors = sum(Levenshtein.distance(ref, hyp) for ref, hyp in zip(refs, hyps, strict=True))
            self._wer_ctc = n_errors / max(1, sum(map(len, refs)))
        return super()._calc_ctc_loss(states, state_lens, text, text_lens)

    def _words(self, units: list[int]) -> list[str]:
        text = self._joint.join(self.token_list[unit] for unit in units if unit not in (self.blank_id, self.ignore_id))
        return text.replace("<space>", " ").replace("\u2581", " ").split()

    def _lower(self, speech: Tensor, speech_lengths: Tensor, seeds: Tensor):
        with torch.autocast(speech.device.type, enabled=False):  # spectra do not fit into half precision
            feats, lens = self._extract_feats(speech, speech_lengths)
            if self.normalize is not None:
                feats, lens = self.normalize(feats, lens)
        output = self.ssl(feats, lens, seeds, functools.partial(encode_features, self))
        return force_gatherable(
            (output.loss, output.stats | {"ssl_loss": output.loss.detach()}, output.weight), speech.device
        )
