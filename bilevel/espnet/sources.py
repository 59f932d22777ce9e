"""One batch of every data source in each step."""

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from bilevel.data.files import write_lines
from bilevel.data.record import is_safe_id
from bilevel.espnet.iterators import BatchStream, mask_seeds


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


def write_source_shapes(shapes: list[str], utt2source: Mapping[str, str], folder: Path) -> list[str]:
    """Divide shape lines by source: one file a source, named like it.

    Args:
        shapes: ESPnet's shape lines of all utterances.
        utt2source: Source of each utterance; empty: all is one source.
        folder: Where the files go; files of sources that are no more are removed.

    Returns:
        Names of the sources.

    Raises:
        ValueError: An utterance without a source, although there is a table.
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
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir() if path.name[0] != "."} - set(groups):
        (folder / stale).unlink()
    for name, lines in groups.items():
        write_lines(folder / name, lines)
    return sorted(groups)


class SourcesIterFactory(AbsIterFactory):
    """For each step one batch of every source.

    Yields `(ids, {"lower": [batch of source 1, ...]})`, sources in the order of their names. A pass is as long as the
    source with the fewest batches; the others skip some of theirs, chosen anew in every pass. Which batches a step gets
    follows from its number alone, so a resumed run goes on where it stood.

    Args:
        sources: ESPnet's factory of each source.
        n_steps_per_epoch: Steps of an epoch; None: one pass.
        seed: Training seed.
    """

    def __init__(self, sources: Mapping[str, SequenceIterFactory], n_steps_per_epoch: int | None, seed: int) -> None:
        # A seed of its own for each source: batches of equal number must not meet in every pass.
        self.streams = {
            name: BatchStream(sources[name], (seed + zlib.crc32(name.encode())) % (1 << 32)) for name in sorted(sources)
        }
        self.n_per_pass = min(len(stream.batches) for stream in self.streams.values())
        self.n_steps = n_steps_per_epoch or self.n_per_pass
        self.seed = seed

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> "_Epoch":
        """The batches of epoch number `epoch` (from 1)."""
        return _Epoch(self, (epoch - 1) * self.n_steps)


class _Epoch:
    """One epoch's steps; knows its length, as ESPnet's log interval needs."""

    def __init__(self, factory: SourcesIterFactory, first: int) -> None:
        self.factory = factory
        self.first = first

    def __len__(self) -> int:
        return self.factory.n_steps

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, Any]]]:
        f = self.factory
        streams = [s.iterate(self.first, f.n_steps, f.n_per_pass) for s in f.streams.values()]
        for parts in zip(*streams, strict=True):
            batches = [
                tensors | {"seeds": mask_seeds(ids, n_pass, f.seed), "source": name}
                for name, (n_pass, ids, tensors) in zip(f.streams, parts, strict=True)
            ]
            yield [key for _, ids, _ in parts for key in ids], {"lower": batches}
