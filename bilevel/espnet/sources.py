"""One batch of every data source in each step."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from bilevel.espnet.iterators import BatchStream, mask_seeds


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
