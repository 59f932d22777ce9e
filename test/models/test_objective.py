import pytest
import torch

from bilevel.models import objective
from bilevel.models.bestrq import Objective as BestRQ

SMALL = {
    "bestrq": {"codebook_size": 8},
    "birq": {"codebook_size": 8},
    "hubert": {"codebook_size": 4},
    "infonce": {"context_frames": 8, "future_frames": 4, "hop_frames": 4, "min_frames": 4},
}


def test_all_objectives_are_found():
    assert objective.names() == sorted(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_objective_keeps_the_contract(name, make_blocks):
    encoder = make_blocks(stack=4, n_blocks=2)
    built = objective.build(name, 4, 3, 2, SMALL[name]).double()
    feats, lens, seeds = torch.randn(3, 90, 4).double(), torch.tensor([90, 70, 85]), torch.tensor([1, 2, 3])
    targets = torch.randint(4, (3, 22)).masked_fill(torch.arange(22) >= (lens // 4).unsqueeze(1), -1)
    output = built(feats, lens, seeds, encoder, targets)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    assert all(p.grad is not None for p in built.parameters())
    assert int(output.weight) > 0
    assert "ssl_feature_std" in output.stats
    assert ("ssl_label_perplexity" in output.stats) == (name != "infonce")
    assert all(key.startswith("ssl_") and value.dim() == 0 for key, value in output.stats.items())
    assert all(torch.isfinite(value) and not value.requires_grad for value in output.stats.values())


@pytest.mark.parametrize(
    ("name", "conf"),
    [*((name, {}) for name in sorted(SMALL)), *(("birq", c) for c in ({"detach_labels": True}, {"w_enhanced": 0.0}))],
)
@pytest.mark.parametrize("layer", [1, 2])
def test_passes_are_those_of_the_encoder(name, conf, layer, make_blocks):
    encoder = make_blocks(stack=4, n_blocks=3)
    conf = SMALL[name] | conf | ({"label_layer": layer} if name == "birq" else {})
    built = objective.build(name, 4, 3, 3, conf).double()
    targets = torch.zeros(2, 15, dtype=torch.long)
    built(torch.randn(2, 60, 4).double(), torch.tensor([60, 60]), torch.tensor([1, 2]), encoder, targets)
    shares = ((n_layers or 3) / 3 * (1 if with_graph else 1 / 3) for _, n_layers, with_graph in encoder.calls)
    assert built.passes == pytest.approx(sum(shares))


def test_build_passes_the_configuration_on():
    built = objective.build("bestrq", 4, 3, 2, {"codebook_size": 7, "n_codebooks": 2})
    assert isinstance(built, BestRQ)
    assert built.head.weight.shape == (14, 3)
    assert objective.build("infonce", 4, 3, 0).predict.weight.shape == (3, 3)


@pytest.mark.parametrize(
    ("name", "conf", "words"),
    [
        ("bestq", {}, "unknown objective 'bestq'; the nearest one is 'bestrq', all: bestrq, birq, hubert, infonce"),
        (
            "birq",
            {"label_layers": 3},
            "birq: unknown argument 'label_layers'; the nearest one is 'label_layer'",
        ),
        ("infonce", {"feat_dim": 3}, "objective infonce: unknown argument 'feat_dim'"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest_that_does(name, conf, words):
    with pytest.raises(ValueError, match=words):
        objective.build(name, 4, 3, 2, conf)
