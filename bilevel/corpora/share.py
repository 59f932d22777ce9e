"""Divide a pool of speech into a labelled share and an unlabelled rest, the same way on every machine."""

import hashlib
from collections.abc import Mapping, Sequence

from bilevel.data.record import Utterance


def divide(
    pool: Sequence[Utterance], durations_sec: Mapping[str, float], share: float, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """The labelled share of a pool, by duration, and the rest.

    Utterances are drawn in the order of SHA-256(seed, id) until their total length is nearest to `share` of the pool's,
    so it is off by at most half the longest utterance. The order of the pool does not matter, and a smaller share
    (same seed) is a subset of a larger one. The parts are disjoint, except for a share of 1.

    Args:
        pool: Utterances with unique ids.
        durations_sec: Length by id; an utterance without one counts as 0 s.
        share: Above 0 and at most 1; with 1 the whole pool is both the labelled and the unlabelled part.
        seed: Another seed gives another draw.

    Raises:
        ValueError: The share is not in (0, 1], or one part would be empty.
    """
    if not 0 < share <= 1:
        raise ValueError(f"labelled share {share}: expected a number above 0 and at most 1")
    if share == 1:
        return list(pool), list(pool)
    order = sorted(pool, key=lambda u: hashlib.sha256(f"{seed}:{u.id}".encode()).digest())
    goal_sec = share * sum(durations_sec.get(u.id, 0.0) for u in pool)
    total_sec, n_labelled = 0.0, 0
    for utterance in order:
        length_sec = durations_sec.get(utterance.id, 0.0)
        if total_sec + length_sec / 2 > goal_sec:
            break
        total_sec += length_sec
        n_labelled += 1
    if not 0 < n_labelled < len(order):
        raise ValueError(
            f"a labelled share of {share} leaves {n_labelled} of {len(order)} utterances labelled; change it"
        )
    return order[:n_labelled], order[n_labelled:]
