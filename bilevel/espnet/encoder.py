"""ESPnet's Conformer without batch statistics, and with passes that stop after some blocks."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.legacy.nets.pytorch_backend.conformer.encoder_layer import EncoderLayer
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError, check_short_utt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bilevel.models.masking import valid_mask


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each time step on its own."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class CheckpointedLayer(EncoderLayer):
    """A block that keeps its input only and computes the rest again in the backward pass, with the same dropout."""

    def __call__(self, x_input: Any, mask: Tensor, cache: Tensor | None = None) -> Any:
        """The call and not `forward`, for `nn.Module.compile` compiles what lies below the call."""
        if not torch.is_grad_enabled():
            return super().__call__(x_input, mask, cache)
        # By the time of the backward pass the encoder may be in another mode than it is now.
        return checkpoint(self._block, self.training, x_input, mask, cache, use_reentrant=False)

    def _block(self, training: bool, x_input: Any, mask: Tensor, cache: Tensor | None) -> Any:
        with mode(self, training):
            output = super().__call__(x_input, mask, cache)
        # ESPnet keeps the attention weights for plots, (B, H, T, T) a block: just what is not to be kept here.
        self.self_attn.attn = None
        return output


class LayerNormConformerEncoder(ConformerEncoder):
    """`ConformerEncoder` whose convolution modules use layer instead of batch normalisation.

    Labelled and unlabelled batches pass through one encoder in turn. Batch statistics would mix the two domains, and
    would make an utterance's states depend on its batch mates and on padding.

    Args:
        input_size: Size of a feature frame.
        attention_window: States that a query sees in all, half on each side of it; None for all. It bounds the reach,
            not the cost: the attention matrix is computed whole.
        checkpoint_layers: Activation checkpointing: memory of one block instead of all, for one more forward pass.
        compile_backend: Backend of torch.compile for the blocks, such as inductor; None: not compiled. Any length, and
            the names of parameters stay.
        kwargs: ESPnet's arguments.

    Raises:
        ValueError: An attention window below 2, or with flash attention or torch.compile, which would ignore it.
    """

    def __init__(
        self,
        input_size: int,
        attention_window: int | None = None,
        checkpoint_layers: bool = False,
        compile_backend: str | None = None,
        **kwargs: Any,
    ) -> None:
        if attention_window is not None:
            if attention_window < 2:
                raise ValueError(f"encoder_conf attention_window {attention_window}: expected 2 states or more")
            if kwargs.setdefault("use_flash_attn", False):
                raise ValueError(
                    "encoder_conf attention_window: flash attention has no window; set use_flash_attn false"
                )
            if compile_backend is not None:
                raise ValueError("encoder_conf attention_window: compiled blocks lose it; set compile_backend null")
        super().__init__(input_size=input_size, **kwargs)
        for layer in self.encoders:
            if layer.conv_module is not None:
                layer.conv_module.norm = ChannelLayerNorm(self.output_size())
            if checkpoint_layers:
                layer.__class__ = CheckpointedLayer  # blocks are made in ESPnet's constructor
            if attention_window is not None:
                # On the attention alone: the block's convolution goes on seeing the mask of the padding.
                layer.self_attn.register_forward_pre_hook(functools.partial(_see_window, attention_window // 2))
            if compile_backend is not None:
                layer.compile(backend=compile_backend, dynamic=True)  # in place: a wrapper would rename the parameters

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        masks: Tensor | None = None,
        ctc: nn.Module | None = None,
        return_all_hs: bool = False,
        n_layers: int | None = None,
    ) -> tuple[Any, Tensor, None]:
        """As `ConformerEncoder.forward`; with `n_layers` the states after that many blocks, without the final norm.

        Blocks above are not computed. The states are those that the whole pass has at this place, in training and in
        evaluation. ESPnet's Conformer never applies `layer_drop_rate`, so no block of a label pass is skipped by it;
        `stochastic_depth_rate` does skip blocks in training, unless the pass is one without dropout.

        Raises:
            ValueError: n_layers is not in 1..number of blocks, or is given with what only a whole pass has.
        """
        if masks is None:  # ESPnet's own asks the GPU for the longest length
            masks = ~valid_mask(ilens, xs_pad.size(1)).to(xs_pad.device)
        if n_layers is None:
            return super().forward(xs_pad, ilens, prev_states, masks, ctc, return_all_hs)
        if not 1 <= n_layers <= len(self.encoders):
            raise ValueError(f"n_layers {n_layers}: expected one of 1..{len(self.encoders)}")
        if return_all_hs or self.interctc_use_conditioning or self.ctc_trim:
            raise ValueError("n_layers: not together with return_all_hs, interctc_use_conditioning or ctc_trim")
        x, masks = self._embed(xs_pad, ~masks.unsqueeze(1))
        for layer in self.encoders[:n_layers]:
            x, masks = layer(x, masks)
        return (x[0] if isinstance(x, tuple) else x), masks.squeeze(1).sum(1), None

    def _embed(self, feats: Tensor, masks: Tensor) -> tuple[Any, Tensor]:
        """What comes before the first block: subsampling, positions."""
        if isinstance(self.embed, nn.Sequential):  # input_layer linear, embed or None: no subsampling
            return self.embed(feats), masks
        too_short, limit = check_short_utt(self.embed, feats.size(1))
        if too_short:
            n_frames = feats.size(1)
            raise TooShortUttError(f"{n_frames} frames: the subsampling needs more than {limit}", n_frames, limit)
        return self.embed(feats, masks)


def _see_window(reach: int, attention: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pre-hook of a self-attention: its mask (B, 1, T), the last argument, becomes (B, T, T) of keys within reach."""
    *rest, mask = inputs
    place = torch.arange(mask.size(-1), device=mask.device)
    distance = (place.unsqueeze(1) - place).abs()
    # A query in the padding may have no valid key within reach; it sees itself, as a row without any key gives nan.
    return *rest, (mask.bool() & (distance <= reach)) | (distance == 0)


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[None]:
    """A module and all below it in training or evaluation mode; afterwards each in the mode that it had."""
    before = [(m, m.training) for m in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for m, was in before:
            m.training = was


def n_blocks(encoder: nn.Module) -> int:
    """Blocks after which a pass can stop; 0 for encoders whose passes cannot."""
    return len(encoder.encoders) if isinstance(encoder, LayerNormConformerEncoder) else 0


def encode_features(
    model: nn.Module, feats: Tensor, lens: Tensor, n_layers: int | None = None, dropout: bool = True
) -> tuple[Tensor, Tensor]:
    """`bilevel.models.output.Encode` by pre-encoder and encoder of a model of ESPnet.

    Every encoder makes whole passes; `n_layers` is for `conformer_layernorm` alone.
    """
    options = {} if n_layers is None else {"n_layers": n_layers}
    with ExitStack() as stack:
        if not dropout:
            for module in filter(None, (model.preencoder, model.encoder)):
                stack.enter_context(mode(module, training=False))
        if model.preencoder is not None:
            feats, lens = model.preencoder(feats, lens)
        states, state_lens, _ = model.encoder(feats, lens, **options)
    return (states[0] if isinstance(states, tuple) else states), state_lens
