"""The pre-training model: an encoder and a self-supervised objective."""

import functools
from typing import Any

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.ssl.espnet_model import ESPnetSSLModel
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor

from bilevel.espnet.encoder import encode_features, n_blocks
from bilevel.models import objective


class BilevelSSLModel(ESPnetSSLModel):
    """ESPnet's self-supervised model with an objective of `bilevel.models`.

    All parameters are one level, the lower one; local steps (PTLOC) are taken on all of them, head included. Parameter
    names are those of the recognition model, so a recipe can start from this encoder.

    Args:
        frontend: Audio to features, or None for extracted features.
        normalize: Normalisation of features, or None.
        preencoder: Between normalisation and encoder, or None.
        encoder: The encoder.
        input_size: Dimension of extracted features; not needed with a front-end.
        ssl: Module of `bilevel.models`: bestrq, birq, hubert or infonce.
        ssl_conf: Arguments of the objective.
    """

    def __init__(
        self,
        frontend: AbsFrontend | None,
        normalize: AbsNormalize | None,
        preencoder: AbsPreEncoder | None,
        encoder: AbsEncoder,
        input_size: int | None = None,
        ssl: str = "bestrq",
        ssl_conf: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            frontend=frontend, specaug=None, normalize=normalize, preencoder=preencoder, encoder=encoder, losses=[],
            util_attributes=set(), required_inputs=set(), util_modules=torch.nn.ModuleDict(), token_list=[],
        )  # fmt: skip
        feat_dim = input_size if frontend is None else frontend.output_size()
        self.ssl = objective.build(ssl, feat_dim, encoder.output_size(), n_blocks(encoder), ssl_conf)

    def upper_params(self) -> list[torch.nn.Parameter]:
        """None: pre-training has no labelled level."""
        return []

    def lower_params(self) -> list[torch.nn.Parameter]:
        """All parameters."""
        return list(self.parameters())

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        seeds: Tensor | None = None,
        targets: Tensor | None = None,
        **_: Any,
    ):
        """Loss of the objective; the only entry, so that DDP's hooks see both passes of a two-pass objective.

        Args:
            speech: (B, S) samples or (B, T, F) features.
            speech_lengths: (B,).
            seeds: (B,) int64 seeds of masks and noise, best on the CPU (`bilevel.models.rows`); None, in validation:
                fixed ones.
            targets: (B, T') int64 labels from outside, padded with -1, for objectives that take them.

        Returns:
            ESPnet's triple: loss, stats, weight (counted frames).
        """
        if seeds is None:
            seeds = torch.arange(len(speech_lengths))
        feats, lens = self.features(speech, speech_lengths)
        output = self.ssl(feats, lens, seeds, functools.partial(encode_features, self), targets)
        loss = output.loss.detach()
        return force_gatherable((output.loss, output.stats | {"loss": loss, "ssl_loss": loss}, output.weight),
                                speech.device)  # fmt: skip

    def features(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features (B, T, F) and their lengths, in full precision."""
        with torch.autocast(speech.device.type, enabled=False):  # spectra do not fit into half precision
            # Not ESPnet's _extract_feats, which cuts the batch to its longest utterance and for that asks the GPU.
            feats, lens = (speech, speech_lengths) if self.frontend is None else self.frontend(speech, speech_lengths)
            return self.normalize(feats, lens) if self.normalize is not None else (feats, lens)
