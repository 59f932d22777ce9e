"""The same function on many items, in several processes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence


def ordered_map[T, R](
    function: Callable[[T], R], items: Sequence[T], nj: int, chunksize: int | None = None
) -> Iterator[R]:
    """`map(function, items)` by `nj` processes; the results come in the order of the items.

    Processes are spawned, not forked: the caller may have threads (torch has). `function` must be picklable. A process
    takes `chunksize` items at a time; None chooses for short work.
    """
    nj = min(nj, len(items))
    if nj <= 1:
        yield from map(function, items)
        return
    with multiprocessing.get_context("spawn").Pool(nj, initializer=_one_thread) as pool:
        yield from pool.imap(function, items, chunksize=chunksize or max(1, min(16, len(items) // (4 * nj))))


def _one_thread() -> None:
    """Processes share the cores already."""
    import os

    os.environ["OMP_NUM_THREADS"] = "1"


def plain[T](items: Iterable[T], total: int, label: str) -> Iterable[T]:
    """No progress report; the default of functions that take one."""
    del total, label
    return items
