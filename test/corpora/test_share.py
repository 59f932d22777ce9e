"""The labelled share: a fair, stable, nested draw."""

import random

import pytest

from bilevel.corpora.share import divide
from bilevel.data.record import Utterance


@pytest.fixture
def pool():
    rng = random.Random(0)
    rows = [Utterance(f"spk{n % 20:02d}-{n:05d}", "a.wav", "go") for n in range(1000)]
    return rows, {u.id: rng.uniform(1.0, 20.0) for u in rows}


def ids(rows):
    return {u.id for u in rows}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_share_is_by_duration_and_a_partition(pool, share):
    rows, durations_sec = pool
    labelled, rest = divide(rows, durations_sec, share, seed=0)
    assert ids(labelled) & ids(rest) == set()
    assert ids(labelled) | ids(rest) == ids(rows)
    total_sec = sum(durations_sec.values())
    labelled_sec = sum(durations_sec[u.id] for u in labelled)
    assert abs(labelled_sec - share * total_sec) <= max(durations_sec.values()) / 2


def test_order_of_the_pool_does_not_matter_and_seeds_differ(pool):
    rows, durations_sec = pool
    first = ids(divide(rows, durations_sec, 0.2, seed=0)[0])
    assert first == ids(divide(rows[::-1], durations_sec, 0.2, seed=0)[0])
    assert len(first & ids(divide(rows, durations_sec, 0.2, seed=1)[0])) < len(first) / 2


def test_smaller_shares_are_nested(pool):
    rows, durations_sec = pool
    shares = [ids(divide(rows, durations_sec, share, seed=3)[0]) for share in (0.05, 0.1, 0.4)]
    assert shares[0] < shares[1] < shares[2]


def test_speakers_are_spread(pool):
    rows, durations_sec = pool
    assert len({u.id[:5] for u in divide(rows, durations_sec, 0.2, seed=0)[0]}) == 20


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_share_out_of_range(pool, share):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        divide(*pool, share, seed=0)


def test_whole_pool_is_both_parts(pool):
    """Share 1: all is labelled, and the self-supervised loss hears all of it too."""
    labelled, unlabelled = divide(*pool, 1.0, seed=0)
    assert ids(labelled) == ids(unlabelled) == ids(pool[0])


def test_share_that_leaves_nothing(pool):
    rows, durations_sec = pool
    with pytest.raises(ValueError, match="leaves 0 of 2"):
        divide(rows[:2], durations_sec, 0.01, seed=0)
