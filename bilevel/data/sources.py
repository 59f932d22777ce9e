"""Data sources: the utterances of each, and its share of a step."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bilevel.data.files import write_lines
from bilevel.data.record import is_safe_id

_RESERVED = {"anchor", "enhanced"}  # ssl_loss_<name> is a curve of the objective already


def batch_shares(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Share of each source in the audio of a step, proportional to size^(1 / temperature).

    Temperature 1 is in proportion to hours, so that all sources have about the same number of batches (arXiv
    2508.19990, section on data imbalance); a large one gives every source the same share.

    Args:
        sizes: Audio of each source, in any unit.
        temperature: At least 1.

    Raises:
        ValueError: A temperature below 1, or a source without audio.
    """
    if temperature < 1:
        raise ValueError(f"source_temperature {temperature}: expected 1 (in proportion to hours) or more (more equal)")
    empty = [name for name, size in sizes.items() if size <= 0]
    if empty or not sizes:
        raise ValueError(f"sources without audio: {', '.join(empty) or 'all'}; drop them from utt2source")
    weights = {name: math.pow(size, 1 / temperature) for name, size in sizes.items()}
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def write_source_shapes(shapes: Sequence[str], utt2source: Mapping[str, str], folder: Path) -> list[str]:
    """Divide shape lines by source: one file a source, named like it.

    Args:
        shapes: ESPnet's shape lines of all utterances.
        utt2source: Source of each utterance; empty: all is one source.
        folder: Where the files go; files of sources that are no more are removed.

    Returns:
        Names of the sources.

    Raises:
        ValueError: An utterance without a source, although there is a table, or a name that will not do.
    """
    groups: dict[str, list[str]] = {}
    lacking = []
    for line in shapes:
        key = line.split(" ", 1)[0]
        if utt2source and key not in utt2source:
            lacking.append(key)
            continue
        groups.setdefault(utt2source.get(key, "all"), []).append(line)
    if lacking:
        raise ValueError(f"utt2source: no source for {len(lacking)} utterances, such as {', '.join(lacking[:3])}")
    unsafe = [name for name in groups if not is_safe_id(name)]
    if unsafe:
        raise ValueError(f"utt2source: source {unsafe[0]!r}: expected letters, digits or any of _.+=@%,-; rename it")
    taken = sorted(_RESERVED & set(groups))
    if taken:
        raise ValueError(f"utt2source: source {taken[0]!r}: the curves use this name for a loss; rename it")
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir() if path.name[0] != "."} - set(groups):
        (folder / stale).unlink()
    for name, lines in groups.items():
        write_lines(folder / name, lines)
    return sorted(groups)
