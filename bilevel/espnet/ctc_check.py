"""Transcripts that CTC cannot align with the encoder's output, listed before training."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from espnet2.train.abs_espnet_model import AbsESPnetModel

from bilevel.data.ctc_fit import needed_frames, too_long
from bilevel.data.files import write_lines
from bilevel.data.tables import read_scp
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.task import BilevelASRTask

MAX_SHARE = 0.01


def check_ctc_fit(options: list[str], train: DumpSet, shape_file: Path, report: Path) -> None:
    """List all training utterances whose encoder output is too short for their tokens.

    The loss of such an utterance is infinite, or a silent 0 with ESPnet's `zero_infinity`.

    Args:
        options: Command line of the training.
        train: Labelled training set.
        shape_file: `<utterance> <samples>`, or `<utterance> <frames>,<dim>`, of that set.
        report: Where the list goes; an empty file means that all fit.

    Raises:
        ValueError: More than 1 % of the utterances do not fit.
    """
    args = BilevelASRTask.get_parser().parse_args(options)
    if args.model_conf.get("ctc_weight", 0.5) == 0.0:  # 0.5 is ESPnet's default
        return
    encode = BilevelASRTask.build_preprocess_fn(args, train=False)
    tokens = {key: encode(key, {"text": text})["text"].tolist() for key, text in read_scp(train.text).items()}
    lengths = {key: int(shape.split(",")[0]) for key, shape in read_scp(shape_file).items()}
    with torch.device("meta"):
        model = BilevelASRTask.build_model(args)
    check_fit(tokens, lengths, encoder_length(model, train.input_size()), report)


def check_fit(
    tokens: Mapping[str, Sequence[int]], lengths: Mapping[str, int], frames: Callable[[int], int], report: Path
) -> None:
    """The check itself.

    Args:
        tokens: Units of each utterance.
        lengths: Input length of each.
        frames: Encoder output frames as a function of input length.
        report: As above.

    Raises:
        ValueError: As above.
    """
    doubtful = _doubtful(tokens, lengths, frames)
    lines = too_long({key: tokens[key] for key in doubtful}, doubtful)
    write_lines(report, lines)
    if not lines:
        return
    message = (
        f"{len(lines)} of {len(tokens)} training utterances are too short for their CTC tokens, such as "
        f"{'; '.join(lines[:3])} (all: {report}). Use longer tokens (a larger --nbpe), less subsampling "
        "(encoder_conf.input_layer=conv2d2 or conv2d1), or drop them"
    )
    if len(lines) > MAX_SHARE * len(tokens):
        raise ValueError(f"{message}; the limit is {MAX_SHARE:.0%}")
    print(f"WARNING: {message}. They add nothing to the loss", flush=True)


def encoder_length(model: AbsESPnetModel, input_size: int | None) -> Callable[[int], int]:
    """Encoder output frames as a function of input length, from a model on the meta device: shapes alone."""
    model.to("meta").eval()

    @functools.cache
    @torch.no_grad()
    def length(n: int) -> int:
        size = (1, n) if input_size is None else (1, n, input_size)
        try:
            feats, lens = model._extract_feats(torch.empty(size, device="meta"), torch.tensor([n]))
            if model.preencoder is not None:
                feats, lens = model.preencoder(feats, lens)
            states = model.encoder(feats, lens)[0]
        except TooShortUttError:  # the subsampling reaches farther than that
            return 0
        return (states[0] if isinstance(states, tuple) else states).size(1)

    return length


def _doubtful(
    tokens: Mapping[str, Sequence[int]], lengths: Mapping[str, int], encoder_length: Callable[[int], int]
) -> dict[str, int]:
    """Encoder frames of the utterances that may not fit.

    Longer input never has fewer output frames. So whatever is longer than an utterance that fits, and needs no more
    frames, fits too; few lengths are left to be tried.
    """
    lacking = sorted(tokens.keys() - lengths.keys())
    if lacking:
        raise ValueError(f"no shape for {', '.join(lacking[:5])}; run stage 10 (statistics) again")
    needs = {key: needed_frames(units) for key, units in tokens.items()}
    n_frames, shortest_fit = {}, math.inf
    for key in sorted(tokens, key=lambda key: (-needs[key], lengths[key])):
        if lengths[key] < shortest_fit:
            n_frames[key] = encoder_length(lengths[key])
            if n_frames[key] >= needs[key]:
                shortest_fit = lengths[key]
    return n_frames
