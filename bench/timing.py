"""Timing that the benchmarks share."""

import gc
import time
from collections.abc import Callable


def ratios(ours: Callable[[], object], other: Callable[[], object], n_rounds: int) -> list[float]:
    """CPU time of ours over the other's, by round, sorted; one call of each to warm up."""
    ours()
    other()
    found = []
    for turn in range(n_rounds):
        spent = {}
        for call in (ours, other) if turn % 2 else (other, ours):
            gc.collect()
            start = time.process_time()
            call()
            spent[call] = time.process_time() - start
        found.append(spent[ours] / spent[other])
    return sorted(found)
