"""One batch of every objective in each step, or two where its weighting takes two."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from bilevel.espnet.iterators import BatchStream, mask_seeds
from bilevel.espnet.moo_data import SSL


class ObjectivesIterFactory(AbsIterFactory):
    """For each step the batches of the objectives that are active in its epoch.

    Yields `(ids, {objective: [batch, ...]})`. Streams are endless and go through their sets in permutations of their
    own. Which batches a step gets follows from its number alone, so a resumed run goes on where it stood.

    Args:
        streams: Objective -> ESPnet's factory.
        n_batches: Objective -> independent batches a step (`Levels.n_batches`).
        active: Epoch (from 0) -> objectives that are trained in it.
        n_steps_per_epoch: Steps of an epoch; None: one pass through the longest stream.
        seed: Training seed.
    """

    def __init__(
        self,
        streams: Mapping[str, SequenceIterFactory],
        n_batches: Mapping[str, int],
        active: Callable[[int], list[str]],
        n_steps_per_epoch: int | None,
        seed: int,
    ) -> None:
        # A seed of its own for each: batches of equal number, say of speech and its translation, must not always meet.
        self.streams = {
            name: BatchStream(factory, (seed + zlib.crc32(name.encode())) % (1 << 32))
            for name, factory in streams.items()
        }
        self.n_batches, self.active, self.seed = dict(n_batches), active, seed
        longest = max(-(-len(stream.batches) // self.n_batches[name]) for name, stream in self.streams.items())
        self.n_steps = n_steps_per_epoch or longest

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> "_Epoch":
        """The batches of epoch number `epoch` (from 1)."""
        return _Epoch(self, epoch)


class _Epoch:
    """One epoch's steps; knows its length, as ESPnet's log interval needs."""

    def __init__(self, factory: ObjectivesIterFactory, epoch: int) -> None:
        self.factory, self.epoch = factory, epoch

    def __len__(self) -> int:
        return self.factory.n_steps

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, Any]]]:
        f, first = self.factory, (self.epoch - 1) * self.factory.n_steps
        names = f.active(self.epoch - 1)
        running = {
            name: f.streams[name].iterate(first * f.n_batches[name], f.n_steps * f.n_batches[name]) for name in names
        }
        for _ in range(f.n_steps):
            ids: list[str] = []
            batch: dict[str, Any] = {}
            for name, stream in running.items():
                batch[name] = []
                for _ in range(f.n_batches[name]):
                    n_pass, keys, tensors = next(stream)
                    seeds = {"seeds": mask_seeds(keys, n_pass, f.seed)} if name == SSL else {}
                    batch[name].append(tensors | seeds)
                    ids += keys
            yield ids, batch


class ChainIterFactory(AbsIterFactory):
    """For validation: all batches of one objective after another, each with the objective's name.

    Args:
        streams: Objective -> ESPnet's factory.
    """

    def __init__(self, streams: Mapping[str, SequenceIterFactory]) -> None:
        self.streams = dict(streams)

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """The batches, in a fixed order."""
        for name, stream in self.streams.items():
            for ids, batch in stream.build_iter(epoch, shuffle=False):
                yield ids, batch | {"objective": name}
