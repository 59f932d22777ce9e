import math

import pytest
import torch

from bilevel.moo.layers import Selection, block_of, group, pairwise

NAMES = [
    "embed.weight",
    "embed.bias",
    "layers.0.a.weight",
    "layers.0.b.weight",
    "layers.1.a.weight",
    "layers.10.a.weight",
]


def gramian(cosine, lengths=(1.0, 1.0)):
    a, b = lengths
    return torch.tensor([[a * a, cosine * a * b], [cosine * a * b, b * b]], dtype=torch.float64)


def test_blocks_of_names():
    assert block_of("encoder.layers.3.norm.weight") == "encoder.layers.3"
    assert block_of("encoder.embed.out.0.weight") == "encoder.embed.out.0"
    assert block_of("encoder.embed.bias") == "encoder.embed"
    assert block_of("scale") == "scale"
    units = group(NAMES, "block")
    assert units == {"embed": [0, 1], "layers.0": [2, 3], "layers.1": [4], "layers.10": [5]}
    assert list(group(NAMES, "tensor")) == NAMES
    with pytest.raises(ValueError, match="granularity 'layer'"):
        group(NAMES, "layer")


def test_cosines_of_pairs():
    rows = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    rows[1, 2] = 0
    found = pairwise(rows @ rows.transpose(1, 2))
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        assert found[0, k] == pytest.approx(float(torch.cosine_similarity(rows[0, i], rows[0, j], dim=0)), abs=1e-6)
    assert [math.isnan(v) for v in found[1].tolist()] == [False, True, True]


def test_selection_takes_the_units_in_conflict():
    products = torch.stack([gramian(c) for c in (-0.5, 0.5, 0.1, -0.2, 0.0, -0.9)])
    selection = Selection(NAMES)
    assert selection.due
    selection.step(products)
    assert selection.tensors() == [0, 3, 5]
    lowest = Selection(NAMES, max_share=0.34)
    lowest.step(products)
    assert lowest.tensors() == [0, 5]


def test_a_block_counts_by_the_length_of_its_gradients():
    products = torch.stack([gramian(-0.5, (0.1, 0.1)), gramian(0.5, (3.0, 3.0)), *[gramian(0.9)] * 4])
    by_block, by_tensor = Selection(NAMES, granularity="block"), Selection(NAMES)
    by_block.step(products)
    by_tensor.step(products)
    assert by_tensor.tensors() == [0]
    assert by_block.tensors() == list(range(6))  # no block conflicts, so all decide


def test_selection_stays_until_the_next_detection():
    selection = Selection(NAMES, every=3)
    conflict, peace = torch.stack([gramian(-1.0)] * 6), torch.stack([gramian(1.0)] * 6)
    conflict[:3] = peace[:3]
    for step in range(3):
        assert selection.due == (step == 0)
        selection.step(conflict if step == 0 else peace[:3])
        assert selection.tensors() == [3, 4, 5]
    assert selection.due
    resumed = Selection(NAMES, every=3)
    resumed.load_state_dict(selection.state_dict())
    assert resumed.due
    assert resumed.tensors() == [3, 4, 5]
    selection.step(peace)
    assert selection.tensors() == list(range(6))


def test_pairs_without_a_gradient_do_not_count():
    one_silent = torch.zeros(6, 3, 3, dtype=torch.float64)
    one_silent[:, :2, :2] = gramian(-0.5)
    one_silent[0] = 0
    selection = Selection(NAMES)
    selection.step(one_silent)
    assert selection.tensors() == [1, 2, 3, 4, 5]


def test_refusals():
    with pytest.raises(ValueError, match="every 0"):
        Selection(NAMES, every=0)
    with pytest.raises(ValueError, match=r"chosen tensors \['x'\]: expected tensors of this model"):
        Selection(NAMES).load_state_dict({"n_steps": 1, "chosen": ["x"]})
    with pytest.raises(ValueError, match="found keys"):
        Selection(NAMES).load_state_dict({})
