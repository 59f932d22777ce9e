import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from bilevel.models.label_quality import counts, quality


def test_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    units = torch.randint(0, 5, (400,), generator=generator)
    labels = (units * 2 + torch.randint(0, 4, (400,), generator=generator)) % 9
    table = counts([(units[:150], labels[:150]), (units[150:], labels[150:])], 5, 9)
    assert torch.equal(table, torch.as_tensor(contingency_matrix(units, labels)))
    found = quality(table)
    assert found["pnmi"] == pytest.approx(mutual_info_score(units, labels) / entropy(units.bincount()))
    assert found["unit_purity"] == pytest.approx(contingency_matrix(units, labels).max(0).sum() / 400)
    assert found["label_purity"] == pytest.approx(contingency_matrix(units, labels).max(1).sum() / 400)
    assert found["perplexity"] == pytest.approx(2.718281828 ** entropy(labels.bincount()))


def test_renamed_units_are_perfect_labels_and_one_label_says_nothing():
    units = torch.tensor([0, 1, 2, 3] * 5)
    perfect = quality(counts([(units, 3 - units)], 4, 4))
    assert (perfect["unit_purity"], perfect["pnmi"], perfect["perplexity"]) == pytest.approx((1.0, 1.0, 4.0))
    nothing = quality(counts([(units, torch.zeros_like(units))], 4, 4))
    assert (nothing["pnmi"], nothing["perplexity"]) == pytest.approx((0.0, 1.0))
