"""Front-end to encoder, from the options of ESPnet's recognition task."""

import argparse
from typing import NamedTuple

import espnet2.tasks.asr as asr
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.layers.abs_normalize import AbsNormalize
from espnet2.layers.stft import Stft

from bilevel.espnet.frontend import DeviceStft


class Parts(NamedTuple):
    """What a batch of speech passes through.

    Attributes:
        frontend: Audio to features; None for extracted features.
        normalize: Normalisation of features, or None.
        preencoder: Between normalisation and encoder, or None.
        encoder: The encoder.
        input_size: Dimension of extracted features; None with a front-end.
    """

    frontend: AbsFrontend | None
    normalize: AbsNormalize | None
    preencoder: AbsPreEncoder | None
    encoder: AbsEncoder
    input_size: int | None


def build_parts(args: argparse.Namespace) -> Parts:
    """Build them as ESPnet does, registries of the recognition task included."""
    if args.input_size is None:
        frontend = asr.frontend_choices.get_class(args.frontend)(**args.frontend_conf)
        for module in frontend.modules():
            if type(module) is Stft:
                module.__class__ = DeviceStft  # made in ESPnet's constructors
        size = frontend.output_size()
    else:
        args.frontend, args.frontend_conf, frontend, size = None, {}, None, args.input_size
    normalize = None
    if args.normalize is not None:
        normalize = asr.normalize_choices.get_class(args.normalize)(**args.normalize_conf)
    preencoder = None
    if args.preencoder is not None:
        preencoder = asr.preencoder_choices.get_class(args.preencoder)(**({"input_size": size} | args.preencoder_conf))
        size = preencoder.output_size()
    encoder = asr.encoder_choices.get_class(args.encoder)(input_size=size, **args.encoder_conf)
    return Parts(frontend, normalize, preencoder, encoder, args.input_size)
