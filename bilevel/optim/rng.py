"""Masks and dropout that stay the same from one pass to the next: torch's global generators, held or seeded."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor


def replay(params: Iterable[Tensor], enabled: bool = True) -> AbstractContextManager[None]:
    """Put torch's generators back afterwards, so that the next pass draws the same numbers again.

    Run the last of several equal passes outside: then the generators have moved on by one pass.

    Args:
        params: Their devices' generators are meant, and that of the CPU.
        enabled: False does nothing.
    """
    return torch.random.fork_rng(_devices(params), enabled=enabled)


@contextmanager
def seeded(seed: int, params: Iterable[Tensor]) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they are as before."""
    devices = _devices(params)
    with torch.random.fork_rng(devices):
        # torch.manual_seed would also seed devices whose generators nobody puts back.
        torch.default_generator.manual_seed(seed)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def state(params: Iterable[Tensor]) -> dict[int | None, Tensor]:
    """State of the CPU's generator (key None) and of those of the GPUs that hold parameters."""
    return {None: torch.get_rng_state()} | {i: torch.cuda.get_rng_state(i) for i in _devices(params)}


@contextmanager
def restored(saved: dict[int | None, Tensor]) -> Iterator[None]:
    """Inside, random numbers are those that followed `saved`; afterwards the generators go on where they were."""
    with torch.random.fork_rng([i for i in saved if i is not None]):
        torch.set_rng_state(saved[None])
        for index, value in saved.items():
            if index is not None:
                torch.cuda.set_rng_state(value, index)
        yield


def _devices(params: Iterable[Tensor]) -> list[int]:
    return sorted({p.device.index for p in params if p.device.type == "cuda"})
