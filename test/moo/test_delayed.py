"""Weights of the step before: what is trained, at which cost, and what is remembered."""

import pytest
import torch
from delayed_worker import LEVELS, PRESENT, SELECTED, process

from bilevel.moo import build
from bilevel.moo.levels import Levels

ASR_ST = [
    {"name": "supervised", "objectives": ["asr", "st"], "weighting": "mgda", "normalise": "none"},
    {"name": "self_supervised", "objectives": ["ssl"], "scale": [[0, 0.1], [10, 1.1]]},
]


def new(model, levels, selection=None):
    """With a selection of 1 of 4 blocks, whatever the cosine, every 3 steps; None: without any."""
    selection = None if selection is None else SELECTED | {"every": 3} | selection
    return Levels(model.shared(), model.head_params(), levels, selection=selection)


def step(model, levels, seed=0, **options):
    model.zero_grad()
    batches = model.batches(2, seed)
    report = levels.backward(model.losses(), {n: b[: levels.n_batches(n)] for n, b in batches.items()}, **options)
    return report, model.grad()


def descend(model, rate=0.1):
    with torch.no_grad():
        for p in model.parameters():
            p -= rate * (torch.zeros_like(p) if p.grad is None else p.grad)


@pytest.mark.parametrize("weighting", ["mean", "static"])
def test_delayed_weights_that_never_change_are_no_delay(make, weighting):
    model, other = make(), make()
    conf = {"weights": [0.5, 3.0, 1.0]} if weighting == "static" else {}
    levels = [{"name": "all", "objectives": ["asr", "st", "ssl"], "weighting": weighting, "weighting_conf": conf}]
    plain, delayed = new(model, levels), new(other, levels, {})
    for seed, absent in enumerate([None, None, "st", "asr", None, None]):
        batches = {n: b for n, b in model.batches(1, seed).items() if n != absent}
        for m, built in ((model, plain), (other, delayed)):
            m.zero_grad()
            report = built.backward(m.losses(), batches, 0.0)
            descend(m)
        assert report["n_deciding"] == 2
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            assert p.grad is None or torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("weighting", ["mgda", "modo", "famo"])
def test_delayed_weights_are_those_of_the_step_before_and_the_scale_is_of_now(model, weighting):
    conf = {"gamma": 0.5} if weighting == "modo" else {}
    levels = [
        ASR_ST[0] | {"weighting": weighting, "weighting_conf": conf, "scale": [[0, 1.0], [10, 3.0]]},
        ASR_ST[1],
    ]
    built, reference = new(model, levels, {}), build(weighting, 2, conf)
    n, own, late = built.n_batches("asr"), None, 0
    for t in range(7):
        batches = {name: b[: built.n_batches(name)] for name, b in model.batches(2, seed=t).items()}
        jacobian = model.jacobian(batches)
        halves = [model.jacobian({name: [b[min(i, len(b) - 1)]] for name, b in batches.items()}) for i in range(n)]
        model.zero_grad()
        model.n_backward = 0
        report = built.backward(model.losses(), batches, epoch=t)
        chosen = set(built.selection.state_dict()["chosen"])
        deciding = torch.cat([torch.full((p.numel(),), name in chosen) for name, p in model.shared().items()])
        first, last = halves[0][:2, deciding], halves[-1][:2, deciding]
        before, own = own, reference.weights(first @ last.T, [report["loss_asr"], report["loss_st"]])
        lam = own if t % 3 == 0 else before
        late += not torch.allclose(lam, own)
        weights = torch.cat([(1 + 0.2 * t) * lam, torch.tensor([0.1 + 0.1 * t], dtype=torch.float64)])
        torch.testing.assert_close(model.grad(), weights @ jacobian)
        assert [report[f"weight_{name}"] for name in model.heads] == pytest.approx(weights.tolist())
        heads = [g.reshape(-1) for name, b in batches.items() for g in model.gradient(name, *b)[1]]
        torch.testing.assert_close(model.grad(shared=False), torch.cat(heads))
        assert report["passes"] == 2 * n + 1
        descend(model)
        after = {name: model.loss(name, b[0]).item() for name, b in batches.items()}
        built.update(after)
        reference.update([after["asr"], after["st"]])
    assert late >= 3  # the delay showed


def test_delayed_weights_cost_the_passes_of_the_sum(make):
    model, plain = make(), make()
    built = new(model, ASR_ST, {})
    for seed in range(5):
        step(model, built, seed)
    model.n_forward = model.n_backward = 0
    step(model, built, 5)
    sum(plain.loss(n, b[0]) for n, b in plain.batches(2, 5).items()).backward()
    assert (model.n_forward, model.n_backward) == (plain.n_forward, plain.n_backward)


def test_delayed_weights_of_those_present_keep_the_sum(model):
    conf = {"name": "all", "objectives": ["asr", "st", "ssl"], "weighting": "modo", "weighting_conf": {"gamma": 0.05}}
    built = new(model, [conf], {"every": 100})

    def weights(seed, *absent):
        model.zero_grad()
        batches = {n: b for n, b in model.batches(2, seed).items() if n not in absent}
        report = built.backward(model.losses(), batches, 0.0)
        jacobian = model.jacobian(batches)
        found = [report[f"weight_{n}"] for n in batches]
        torch.testing.assert_close(model.grad(), torch.tensor(found, dtype=torch.float64) @ jacobian)
        return found, built.levels[0].state_dict()["lam"].tolist()

    _, (asr, st, ssl) = weights(0)
    assert min(asr, st, ssl) > 0.1
    assert asr != pytest.approx(ssl)
    found, (new_asr, old_st, new_ssl) = weights(1, "st")
    share = (asr + st + ssl) / (asr + ssl)
    assert found == pytest.approx([share * asr, share * ssl])
    assert old_st == st
    assert new_asr != asr
    found, after = weights(2)
    share = (new_asr + new_ssl) / (new_asr + st + new_ssl)
    assert found == pytest.approx([share * new_asr, share * st, share * new_ssl])
    found, _ = weights(3, "asr", "st")
    assert found == pytest.approx([sum(after)])


def test_an_overflow_leaves_delayed_weights_as_they_were(model):
    levels = [ASR_ST[0] | {"weighting": "modo", "weighting_conf": {"gamma": 0.05}}, ASR_ST[1]]
    built = new(model, levels, {})
    step(model, built)
    before = built.state_dict()["levels"]["supervised"]["lam"]
    report, found = step(model, built, seed=1, scale_loss=lambda loss: loss * 1e308 * 10)
    assert report["finite"] == 0.0
    assert not found.isfinite().all()
    assert torch.equal(built.state_dict()["levels"]["supervised"]["lam"], before)
    report, found = step(model, built, seed=2)
    assert found.isfinite().all()
    assert report["weight_asr"] == before[0]


def test_micro_batches_with_delayed_weights(make):
    model, other = make(), make()
    conf = {"name": "all", "objectives": ["asr", "st", "ssl"], "weighting": "static"}
    built = new(other, [conf], {})
    step(other, built)
    batches = model.batches(2, seed=1)
    for counts in (None, {"asr": 2, "st": 1, "ssl": 2}):
        batches["st"] = batches["st"][: 2 if counts is None else 1]
        other.zero_grad()
        built.start(0.0, counts)
        for name, xs in batches.items():
            for x in xs:
                built.add(name, other.loss(name, x))
        assert built.finish()["finite"] == 1
        torch.testing.assert_close(other.grad(), model.jacobian(batches).sum(0))


def test_delayed_weights_in_two_processes_equal_one(model, tmp_path):
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    built = new(model, LEVELS, {"every": 10})
    for seed, found in enumerate(ours):
        model.zero_grad()
        batches = {n: b for n, b in model.batches(2, seed).items() if any(n in here[seed] for here in PRESENT)}
        built.backward(model.losses(), {n: b[: built.n_batches(n)] for n, b in batches.items()}, epoch=seed)
        torch.testing.assert_close(found, torch.cat([model.grad(), model.grad(shared=False)]))


def test_refusals_of_delayed_weights(model):
    built = new(model, ASR_ST, {})
    step(model, built)
    batches = model.batches()
    built.start(1.0)
    for name, (x,) in batches.items():
        built.add(name, model.loss(name, x))
    with pytest.raises(ValueError, match=r"at epoch 2.0, but the step began with .*expected the same epoch in `start`"):
        built.finish(2.0)
    built.start(1.0)
    built.add("asr", model.loss("asr", *batches["asr"]))
    with pytest.raises(ValueError, match=r"give `Levels\.start` the counts"):
        built.finish(1.0)
    with pytest.raises(ValueError, match="unknown objective 'asrr'"):
        built.start(1.0, {"asrr": 1})
    with pytest.raises(ValueError, match="no objective has data"):
        built.backward(model.losses(), {})
