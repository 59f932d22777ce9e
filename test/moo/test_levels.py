import math

import pytest
import torch

from bilevel.moo import build, names
from bilevel.moo.levels import Levels

ASR_ST = [
    {"name": "supervised", "objectives": ["asr", "st"], "weighting": "mgda", "normalise": "none"},
    {"name": "self_supervised", "objectives": ["ssl"], "scale": [[0, 0.1], [10, 1.1]]},
]


def new(model, levels=ASR_ST, **options):
    return Levels(model.shared(), model.head_params(), levels, **options)


def step(model, levels, seed=0, epoch=0.0, **options):
    """One whole step on fresh batches; returns the report and the gradient of the shared parameters."""
    model.zero_grad()
    batches = model.batches(2, seed)
    report = levels.backward(
        model.losses(), {n: b[: levels.n_batches(n)] for n, b in batches.items()}, epoch, **options
    )
    return report, model.grad()


def test_the_direction_is_the_sum_over_levels_of_eta_lambda_g(model):
    jacobian = model.jacobian({n: b[:1] for n, b in model.batches(2).items()})
    lam = build("mgda", 2).weights(jacobian[:2] @ jacobian[:2].T)
    report, found = step(model, new(model), epoch=5)
    torch.testing.assert_close(found, lam @ jacobian[:2] + 0.6 * jacobian[2])
    assert report["weight_asr"] == pytest.approx(float(lam[0]))
    assert report["weight_ssl"] == report["scale_self_supervised"] == pytest.approx(0.6)
    assert report["contribution_ssl"] == pytest.approx(0.6 * float(jacobian[2].norm()))
    cosine = torch.cosine_similarity(jacobian[0], jacobian[1], dim=0)
    assert report["cosine_supervised"] == pytest.approx(float(cosine))
    assert "cosine_self_supervised" not in report
    assert report["passes"] == 3
    assert report["loss_st"] == pytest.approx(model.loss("st", model.batches(2)["st"][0]).item())
    assert all(type(v) is float for v in report.values())


def test_values_stay_and_heads_get_their_plain_gradient_also_without_weight(model):
    before = [p.detach().clone() for p in model.parameters()]
    levels = [{"name": "only", "objectives": ["asr", "st", "ssl"], "weighting": "static", "scale": 0.0}]
    _, found = step(model, new(model, levels))
    assert not found.any()
    heads = [g.reshape(-1) for n, b in model.batches(2).items() for g in model.gradient(n, b[0])[1]]
    torch.testing.assert_close(model.grad(shared=False), torch.cat(heads))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_nested_scales_multiply(model):
    levels = [{"name": n, "objectives": [n], "scale": s} for n, s in (("asr", 1.0), ("st", 0.5), ("ssl", 0.2))]
    assert new(model, levels).scales(0) == {"asr": 1.0, "st": 0.5, "ssl": 0.2}
    assert new(model, levels, nested=True).scales(0) == {"asr": 1.0, "st": 0.5, "ssl": pytest.approx(0.1)}


def test_the_plain_sum_is_the_gradient_of_the_summed_loss(model):
    levels = [{"name": "all", "objectives": ["st", "ssl", "asr"], "weighting": "static"}]
    _, found = step(model, new(model, levels))
    model.zero_grad()
    sum(model.loss(n, b[0]) for n, b in model.batches(2).items()).backward()
    torch.testing.assert_close(found, model.grad())


def test_the_order_of_names_in_a_level_is_that_of_its_weights(model):
    levels = [{"name": "all", "objectives": ["ssl", "asr", "st"], "weighting": "static"}]
    levels[0]["weighting_conf"] = {"weights": [1.0, 2.0, 3.0]}
    report, found = step(model, new(model, levels))
    assert [report[f"weight_{n}"] for n in ("asr", "st", "ssl")] == [2.0, 3.0, 1.0]
    jacobian = model.jacobian({n: b[:1] for n, b in model.batches(2).items()})
    torch.testing.assert_close(found, torch.tensor([2.0, 3.0, 1.0]).double() @ jacobian)


def test_modo_takes_two_batches_and_others_one(model):
    levels = [ASR_ST[0] | {"weighting": "modo", "weighting_conf": {"gamma": 0.01}}, ASR_ST[1]]
    built = new(model, levels)
    assert [built.n_batches(n) for n in ("asr", "st", "ssl")] == [2, 2, 1]
    report, found = step(model, built, epoch=10)
    batches = model.batches(2)
    first, second = (model.jacobian({n: [b[i]] for n, b in batches.items()}) for i in (0, 1))
    lam = build("modo", 2, {"gamma": 0.01}).weights(first[:2] @ second[:2].T)
    torch.testing.assert_close(found, lam @ (first[:2] + second[:2]) / 2 + 1.1 * first[2])
    assert report["passes"] == 5


def test_moco_steps_along_its_moving_means(model):
    levels = [ASR_ST[0] | {"weighting": "moco", "weighting_conf": {"beta": 0.25, "gamma": 0.01}}, ASR_ST[1]]
    built = new(model, levels)
    _, _ = step(model, built, seed=0)
    report, found = step(model, built, seed=1)
    old, now = (model.jacobian({n: b[:1] for n, b in model.batches(2, seed).items()}) for seed in (0, 1))
    tracked = 0.75 * old[:2] + 0.25 * now[:2]
    lam = torch.tensor([report["weight_asr"], report["weight_st"]], dtype=torch.float64)
    torch.testing.assert_close(found, lam @ tracked + 0.1 * now[2])


def test_the_monitor_sees_both_batches_of_those_that_have_two(model):
    levels = [ASR_ST[0] | {"weighting": "modo", "weighting_conf": {"gamma": 0.01}}, ASR_ST[1]]
    built = new(model, levels, selection=None, monitor={"every": 1, "granularity": "tensor"})
    batches = model.batches(2)
    found = {name: [model.gradient(name, x)[0] for x in batches[name]] for name in ("asr", "st")}
    step(model, built)
    (record,) = built.monitor.records
    for t, shares in enumerate(record["signal_share"]):
        for name, share in zip(("asr", "st"), shares, strict=False):
            a, b = (g[t].flatten() for g in found[name])
            product = float(a @ b)
            expected = product / float(((a + b) / 2).square().sum()) if product else None
            assert share == (expected and pytest.approx(expected, abs=6e-5))
        assert shares[2] is None, "one batch"
    assert any(row[0] is not None for row in record["signal_share"])


def test_an_absent_objective_leaves_the_others_and_its_own_state(model):
    levels = [{"name": "all", "objectives": ["asr", "st", "ssl"], "weighting": "moco"}]
    built = new(model, levels)
    step(model, built)
    kept = built.state_dict()["levels"]["all"]
    batches = {n: b[:1] for n, b in model.batches(1, seed=3).items() if n != "st"}
    model.zero_grad()
    report = built.backward(model.losses(), batches)
    now = built.state_dict()["levels"]["all"]
    assert "weight_st" not in report
    assert report["weight_asr"] + report["weight_ssl"] > 0
    assert now["weighting"]["lam"][1] == kept["weighting"]["lam"][1]
    assert torch.equal(now["weighting"]["means"][1][0], kept["weighting"]["means"][1][0])
    assert not torch.equal(now["weighting"]["means"][0][0], kept["weighting"]["means"][0][0])
    assert now["normaliser"]["means"][1] == kept["normaliser"]["means"][1]
    with pytest.raises(ValueError, match="no objective has data"):
        built.backward(model.losses(), {})


def test_an_overflow_goes_to_the_gradient_and_not_into_the_state(model):
    levels = [ASR_ST[0] | {"weighting": "moco", "normalise": "running"}, ASR_ST[1]]
    built = new(model, levels, selection=None, monitor={"every": 1})
    step(model, built)
    before = built.state_dict()["levels"]["supervised"]["weighting"]
    report, found = step(model, built, seed=1, scale_loss=lambda loss: loss * 1e308 * 10)
    assert report["finite"] == 0.0
    assert not found.isfinite().all()
    after = built.state_dict()["levels"]["supervised"]["weighting"]
    assert torch.equal(after["lam"], before["lam"])
    assert all(torch.equal(a, b) for a, b in zip(after["means"][0], before["means"][0], strict=True) if a is not None)
    assert len(built.monitor.records) == 1
    report, found = step(model, built, seed=2)
    assert report["finite"] == 1.0
    assert found.isfinite().all()


SELECTION = {
    "threshold": 2.0,
    "max_share": 0.3,
    "every": 3,
    "granularity": "block",
}  # 1 of 4 blocks, whatever the cosine


def test_layers_that_are_not_chosen_are_trained_like_all_others(model):
    """The released code leaves them without an update."""
    built = new(model, selection=SELECTION)
    for seed in range(4):
        report, found = step(model, built, seed, epoch=5)
        jacobian = model.jacobian({n: b[:1] for n, b in model.batches(2, seed).items()})
        lam = torch.tensor([report["weight_asr"], report["weight_st"], report["weight_ssl"]], dtype=torch.float64)
        torch.testing.assert_close(found, lam @ jacobian)
        moved = [n for n, p in model.shared().items() if p.grad is not None and p.grad.any()]
        assert moved == [n for n in model.shared() if n.startswith("blocks.")]
        assert report["n_deciding"] == 2
        assert report["passes"] == (3 if seed % 3 == 0 else 4)


def test_weights_come_from_the_chosen_layers_alone(model):
    built = new(model, selection=SELECTION)
    report, _ = step(model, built)
    chosen = built.selection.state_dict()["chosen"]
    rows = []
    for name in ("asr", "st"):
        gradient = dict(zip(model.shared(), model.gradient(name, model.batches(2)[name][0])[0], strict=True))
        rows.append(torch.cat([gradient[n].reshape(-1) for n in chosen]))
    rows = torch.stack(rows)
    expected = build("mgda", 2).weights(rows @ rows.T)
    assert report["weight_asr"] == pytest.approx(float(expected[0]))
    whole, _ = step(model, new(model))
    assert abs(whole["weight_asr"] - report["weight_asr"]) > 1e-3


def test_famo_hears_of_the_losses_after_the_step(model):
    levels = [{"name": "all", "objectives": ["asr", "st", "ssl"], "weighting": "famo"}]
    built = new(model, levels)
    first, _ = step(model, built)
    losses = torch.tensor([first[f"loss_{n}"] for n in model.heads], dtype=torch.float64)
    weights = [first[f"weight_{n}"] for n in model.heads]
    torch.testing.assert_close(torch.tensor(weights).double(), (1 / losses) / (1 / losses).sum(), rtol=1e-5, atol=1e-7)
    built.update({"asr": 0.1, "st": first["loss_st"], "ssl": first["loss_ssl"]})
    second, _ = step(model, built)
    assert second["weight_asr"] < first["weight_asr"]
    assert second["weight_st"] > first["weight_st"]


@pytest.mark.parametrize("delayed", [False, True], ids=["", "delayed"])
@pytest.mark.parametrize("weighting", [n for n in names() if n != "torchjd"])
def test_a_resumed_run_continues_bit_by_bit(make, weighting, delayed, tmp_path):
    straight, resumed = make(), make()
    levels = [
        {"name": "one", "objectives": ["asr", "st"], "weighting": weighting},
        {"name": "two", "objectives": ["ssl"], "scale": [[0, 0], [4, 1]]},
    ]
    selection = None if weighting == "moco" else SELECTION | {"delayed": delayed}
    a, b = (new(m, levels, selection=selection, monitor={"every": 2}) for m in (straight, resumed))

    def run(model, built, seeds):
        for seed in seeds:
            report, found = step(model, built, seed, epoch=seed)
            built.update({n: 0.9 * report[f"loss_{n}"] for n in ("asr", "st", "ssl")})
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * (torch.zeros_like(p) if p.grad is None else p.grad)
        return found

    run(straight, a, range(2))
    torch.save({"levels": a.state_dict(), "model": straight.state_dict()}, tmp_path / "checkpoint.pt")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resumed.load_state_dict(state["model"])
    b.load_state_dict(state["levels"])
    assert torch.equal(run(straight, a, range(2, 5)), run(resumed, b, range(2, 5)))
    assert a.monitor.records == b.monitor.records


def test_active_objectives_follow_the_schedule(model):
    two_stage = [
        {"name": "fine_tuning", "objectives": ["asr", "st"], "weighting": "static", "scale": [[2, 0], [2, 1]]},
        {"name": "pre_training", "objectives": ["ssl"], "scale": [[2, 1], [2, 0]]},
    ]
    built = new(model, two_stage)
    assert built.active(0) == ["ssl"]
    assert built.active(2) == ["asr", "st"]
    batches = {n: b for n, b in model.batches().items() if n in built.active(0)}
    report = built.backward(model.losses(), batches, epoch=0)
    assert report["passes"] == 1
    assert model.heads["asr"].weight.grad is None
    assert math.isfinite(report["loss_ssl"])


def test_refusals(model):
    with pytest.raises(ValueError, match="unknown argument of a level: 'weigting'; the nearest one is 'weighting'"):
        new(model, [ASR_ST[0] | {"weigting": "mgda"}])
    with pytest.raises(ValueError, match="unknown objective 'asrr'"):
        new(model, [{"name": "one", "objectives": ["asrr"]}])
    with pytest.raises(ValueError, match=r"expected each of \['asr', 'st', 'ssl'\] once"):
        new(model, ASR_ST[:1])
    with pytest.raises(ValueError, match="once, in levels of different names"):
        new(model, [ASR_ST[0], ASR_ST[1] | {"name": "supervised"}])
    with pytest.raises(ValueError, match="expected a list of at least one name"):
        new(model, [{"name": "one", "objectives": "asr"}])
    with pytest.raises(ValueError, match="follows whole gradients"):
        new(model, [ASR_ST[0] | {"weighting": "moco"}, ASR_ST[1]], selection={})
    built = new(model, selection={})
    with pytest.raises(ValueError, match="selection is off there, but not here"):
        built.load_state_dict(new(model).state_dict())
    with pytest.raises(ValueError, match="found keys"):
        built.load_state_dict({})
