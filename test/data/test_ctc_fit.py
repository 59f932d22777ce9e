"""Exactly the utterances whose CTC loss is infinite are listed."""

import random

import pytest
import torch

from bilevel.data.ctc_fit import needed_frames, too_long


@pytest.mark.parametrize(("tokens", "needed"), [("", 0), ("a", 1), ("abc", 3), ("aab", 4), ("aaa", 5)])
def test_needed_frames(tokens, needed):
    assert needed_frames(tokens) == needed


def test_agrees_with_the_loss():
    rng = random.Random(2)
    for _ in range(50):
        tokens = rng.choices((1, 2), k=rng.randint(1, 6))
        n_frames = rng.randint(1, 8)
        loss = torch.nn.functional.ctc_loss(
            torch.zeros(n_frames, 1, 3).log_softmax(-1), torch.tensor([tokens]), [n_frames], [len(tokens)]
        )
        assert bool(too_long({"u": tokens}, {"u": n_frames})) == bool(loss.isinf())


def test_list_is_sorted_and_complete():
    found = too_long({"b": "xy", "a": "xx", "c": "x"}, {"a": 2, "b": 1, "c": 1})
    assert found == ["a: 2 encoder frames, its 2 tokens need 3", "b: 1 encoder frames, its 2 tokens need 2"]
    with pytest.raises(ValueError, match="no number of frames for a"):
        too_long({"a": "x"}, {})
