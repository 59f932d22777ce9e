"""Which transcripts are too long for CTC, found before training instead of hidden by `zero_infinity`."""

from collections.abc import Mapping, Sequence
from itertools import pairwise


def needed_frames(tokens: Sequence[str]) -> int:
    """Fewest encoder frames for these tokens: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(left == right for left, right in pairwise(tokens))


def too_long(tokens: Mapping[str, Sequence[str]], n_frames: Mapping[str, int]) -> list[str]:
    """Utterances whose tokens do not fit into the encoder's frames, a line each, sorted.

    Args:
        tokens: Tokens by utterance.
        n_frames: Encoder output frames by utterance.

    Raises:
        ValueError: An utterance has no number of frames.
    """
    lacking = sorted(tokens.keys() - n_frames.keys())
    if lacking:
        raise ValueError(f"no number of frames for {', '.join(lacking)}; run the format stage again")
    return [
        f"{key}: {n_frames[key]} encoder frames, its {len(tokens[key])} tokens need {needed_frames(tokens[key])}"
        for key in sorted(tokens)
        if n_frames[key] < needed_frames(tokens[key])
    ]
