"""ESPnet's Conformer without batch statistics."""

from typing import Any

from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from torch import Tensor, nn


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each time step on its own."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class LayerNormConformerEncoder(ConformerEncoder):
    """`ConformerEncoder` whose convolution modules use layer instead of batch normalisation.

    Labelled and unlabelled batches pass through one encoder in turn. Batch statistics would mix the two domains, and
    would make an utterance's states depend on its batch mates and on padding. All arguments are ESPnet's.
    """

    def __init__(self, input_size: int, **kwargs: Any) -> None:
        super().__init__(input_size=input_size, **kwargs)
        for layer in self.encoders:
            if layer.conv_module is not None:
                layer.conv_module.norm = ChannelLayerNorm(self.output_size())
