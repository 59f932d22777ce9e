"""One encoder, a head for each language and task, and a self-supervised objective."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.specaug.abs_specaug import AbsSpecAug
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor, nn

from bilevel.espnet.encoder import encode_features, n_blocks
from bilevel.espnet.moo_data import SSL
from bilevel.espnet.parts import Parts
from bilevel.models import objective

_STATS = ("acc", "cer", "wer", "cer_ctc")


class MultiObjectiveModel(AbsESPnetModel):
    """Front-end to encoder are shared; a head is ESPnet's recognition model without an encoder of its own.

    A head takes the encoder's states for features, so its losses, error rates and decoders are ESPnet's, and with the
    shared parts before it, it is a plain recognition model again (`moo_export`). Parameter names are those of that
    model, below `heads.<objective>`.

    Args:
        parts: What is shared.
        specaug: Masks features of the supervised objectives in training; masking is the self-supervised one's own.
        heads: Objective -> its head.
        ssl: Self-supervised objective, a module of `bilevel.models`; None: there is none.
        ssl_conf: Its arguments.
    """

    def __init__(
        self,
        parts: Parts,
        specaug: AbsSpecAug | None,
        heads: Mapping[str, ESPnetASRModel],
        ssl: str | None = None,
        ssl_conf: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.frontend, self.specaug, self.normalize = parts.frontend, specaug, parts.normalize
        self.preencoder, self.encoder = parts.preencoder, parts.encoder
        self.heads = nn.ModuleDict(heads)
        self.ssl = None
        if ssl is not None:
            feat_dim = parts.input_size if parts.frontend is None else parts.frontend.output_size()
            size = parts.encoder.output_size()
            self.ssl = objective.build(ssl, feat_dim, size, n_blocks(parts.encoder), ssl_conf)

    def objectives(self) -> list[str]:
        """Names of the objectives."""
        return [*self.heads, *([SSL] if self.ssl is not None else [])]

    def passes(self, name: str) -> float:
        """What a batch of an objective costs, in forward and backward passes of the encoder."""
        return self.ssl.passes if name == SSL else 1.0

    def shared_params(self) -> dict[str, nn.Parameter]:
        """Theta by name: front-end to encoder."""
        return {name: p for name, p in self.named_parameters() if not name.startswith(("heads.", "ssl."))}

    def head_params(self) -> dict[str, list[nn.Parameter]]:
        """Objective -> phi, the parameters of its head."""
        return {name: list((self.ssl if name == SSL else self.heads[name]).parameters()) for name in self.objectives()}

    def forward(self, speech: Tensor, speech_lengths: Tensor, objective: str, **batch: Any):
        """Loss of one objective.

        Args:
            speech: (B, S) samples or (B, T, F) features.
            speech_lengths: (B,).
            objective: Its name.
            batch: text (B, L) and text_lengths (B,); for `ssl` seeds (B,) int64, fixed ones in validation.

        Returns:
            ESPnet's triple: loss per token or masked frame, stats under `<name>_<objective>`, weight (their number).
            In validation the supervised objectives add up to `loss`, the mean per token.
        """
        feats, lens = self._features(speech, speech_lengths, augment=objective != SSL)
        if objective == SSL:
            return self._self_supervised(feats, lens, batch.get("seeds"))
        states, state_lens = encode_features(self, feats, lens)
        loss, stats, n_utterances = self.heads[objective](states, state_lens, batch["text"], batch["text_lengths"])
        n_tokens = batch["text_lengths"].sum().view(1).to(n_utterances)
        loss = loss * n_utterances.to(loss) / n_tokens.to(loss)  # ESPnet's is per utterance: long ones would weigh more
        found = {f"{k}_{objective}": stats[k] for k in _STATS if stats.get(k) is not None}
        found[f"loss_{objective}"] = loss.detach()
        if not self.training:
            found["loss"] = loss.detach()
        return force_gatherable((loss, found, n_tokens), speech.device)

    def _features(self, speech: Tensor, speech_lengths: Tensor, augment: bool) -> tuple[Tensor, Tensor]:
        """Normalised features (B, T, F) and their lengths."""
        with torch.autocast(speech.device.type, enabled=False):  # spectra do not fit into half precision
            feats, lens = self._extract_feats(speech, speech_lengths)
            if augment and self.training and self.specaug is not None:
                feats, lens = self.specaug(feats, lens)
            return self.normalize(feats, lens) if self.normalize is not None else (feats, lens)

    def _extract_feats(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) and their lengths; of the name that ESPnet's models have for it."""
        speech = speech[:, : speech_lengths.max()]
        return (speech, speech_lengths) if self.frontend is None else self.frontend(speech, speech_lengths)

    def _self_supervised(self, feats: Tensor, lens: Tensor, seeds: Tensor | None):
        if seeds is None:
            seeds = torch.arange(len(lens))
        output = self.ssl(feats, lens, seeds, functools.partial(encode_features, self))
        stats = output.stats | {f"loss_{SSL}": output.loss.detach()}
        return force_gatherable((output.loss, stats, output.weight), feats.device)

    def collect_feats(self, speech: Tensor, speech_lengths: Tensor, **_: Any) -> dict[str, Tensor]:
        """Features before normalisation, of which ESPnet's stage of statistics takes mean and variance."""
        feats, lens = self._extract_feats(speech, speech_lengths)
        return {"feats": feats, "feats_lengths": lens}
