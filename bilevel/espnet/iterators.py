"""Labelled and unlabelled batches in one step."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from torch.utils.data import DataLoader

from bilevel.optim.schedule import Plan

# Offset of the seed: were one set both labelled and unlabelled, the two batches of a step would be the same.
_UNLABELLED = 1 << 31


class BatchStream:
    """An endless, seeded stream of batches over one data set; its shorter partner just wraps around.

    Pass number p is a permutation drawn from (seed, p), so batch number k is a pure function of k.

    Args:
        factory: ESPnet's factory: data set, batches, collate function, workers.
        seed: Seed of the permutations.
    """

    def __init__(self, factory: SequenceIterFactory, seed: int) -> None:
        self.factory = factory
        self.batches: list[Sequence[str]] = factory.sampler.generate(seed)
        self.seed = seed
        if not self.batches:
            raise ValueError("a data stream has no batches: check its shape file and the batch size")

    def ids(self, start: int, count: int, n_per_pass: int | None = None) -> list[tuple[int, Sequence[str]]]:
        """(pass number, utterance ids) of the batches start .. start + count - 1.

        A pass takes `n_per_pass` batches, by default all, and skips the rest of its permutation.
        """
        n = len(self.batches)
        orders: dict[int, np.ndarray] = {}
        chosen = []
        for k in range(start, start + count):
            n_pass, index = divmod(k, n_per_pass or n)
            if n_pass not in orders:
                orders[n_pass] = np.random.RandomState([self.seed, n_pass]).permutation(n)
            chosen.append((n_pass, self.batches[orders[n_pass][index]]))
        return chosen

    def iterate(
        self, start: int, count: int, n_per_pass: int | None = None
    ) -> Iterator[tuple[int, list[str], dict[str, Any]]]:
        """(pass number, ids, collated batch) of the batches start .. start + count - 1; arguments as of `ids`."""
        if not count:
            return
        chosen = self.ids(start, count, n_per_pass)
        loader = DataLoader(
            self.factory.dataset,
            batch_sampler=[ids for _, ids in chosen],
            num_workers=self.factory.num_workers,
            pin_memory=self.factory.pin_memory,
            collate_fn=self.factory.collate_fn,
        )
        for (n_pass, _), (ids, batch) in zip(chosen, loader, strict=True):
            yield n_pass, ids, batch


def mask_seeds(ids: Sequence[str], n_pass: int, seed: int) -> torch.Tensor:
    """(B,) int64 seeds of the masks: they depend on utterance, visit and training seed, and on nothing else."""
    return torch.tensor([zlib.crc32(f"{seed}:{n_pass}:{i}".encode()) for i in ids], dtype=torch.int64)


class TwoStreamIterFactory(AbsIterFactory):
    """For each step the batches that its stage needs.

    Yields `(ids, {"upper": labelled batch, "lower": unlabelled batch})`, either key only where the plan takes that
    level. Which batches an epoch gets follows from the step number alone, so a resumed run continues both streams
    where they stood.

    Args:
        labelled: Factory of the labelled set.
        unlabelled: Factory of the unlabelled set, or None when the plan never needs it.
        plan: Stages by step number.
        n_steps_per_epoch: Steps of one epoch.
        seed: Training seed.

    Raises:
        ValueError: The plan has a lower level but there is no unlabelled set.
    """

    def __init__(
        self,
        labelled: SequenceIterFactory,
        unlabelled: SequenceIterFactory | None,
        plan: Plan,
        n_steps_per_epoch: int,
        seed: int,
    ) -> None:
        if unlabelled is None and plan.explore + plan.joint > 0:
            raise ValueError("this method trains on unlabelled speech: pass --unlabelled_set")
        self.labelled = BatchStream(labelled, seed)
        self.unlabelled = BatchStream(unlabelled, seed + _UNLABELLED) if unlabelled is not None else None
        self.plan = plan
        self.n_steps = n_steps_per_epoch
        self.seed = seed

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> "_Epoch":
        """The batches of epoch number `epoch` (from 1)."""
        return _Epoch(self, (epoch - 1) * self.n_steps)


class _Epoch:
    """One epoch's steps; knows its length, as ESPnet's log interval needs."""

    def __init__(self, factory: TwoStreamIterFactory, first: int) -> None:
        self.factory = factory
        self.first = first

    def __len__(self) -> int:
        return self.factory.n_steps

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, Any]]]:
        f, plan = self.factory, self.factory.plan
        last = self.first + f.n_steps
        starts, ends = plan.positions(self.first), plan.positions(last)
        upper = f.labelled.iterate(starts[0], ends[0] - starts[0])
        lower = f.unlabelled.iterate(starts[1], ends[1] - starts[1]) if f.unlabelled else iter(())
        for step in range(self.first, last):
            ids: list[str] = []
            batch: dict[str, Any] = {}
            stage = plan.stage(step)
            if stage != "explore":
                _, upper_ids, batch["upper"] = next(upper)
                ids += upper_ids
            if stage != "finetune":
                n_pass, lower_ids, tensors = next(lower)
                batch["lower"] = tensors | {"seeds": mask_seeds(lower_ids, n_pass, f.seed)}
                ids += lower_ids
            yield ids, batch
