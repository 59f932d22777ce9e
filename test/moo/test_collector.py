import gc
import weakref

import pytest
import torch
from moo_kit import fill, new, process

from bilevel.moo.collector import Collector


def test_gramians_are_those_of_plain_gradients_tensor_by_tensor(model):
    batches = model.batches()
    found = fill(model, new(model), batches).gramians()
    for t in range(len(model.shared())):
        rows = torch.stack([model.gradient(name, *b)[0][t].reshape(-1) for name, b in batches.items()])
        torch.testing.assert_close(found[t], rows @ rows.T)
    assert found.sum(0).diagonal().min() > 0
    assert not any(p.grad is not None for p in model.parameters())


def test_two_batches_give_their_product_and_their_mean(model):
    batches = model.batches(2)
    collector = fill(model, new(model), batches)
    first, second = (model.jacobian({n: [b[i]] for n, b in batches.items()}) for i in (0, 1))
    torch.testing.assert_close(collector.gramians(cross=True).sum(0), first @ second.T)
    mean = (first + second) / 2
    torch.testing.assert_close(collector.gramians().sum(0), mean @ mean.T)
    collector.combine(torch.tensor([0.5, 0.3, 0.2]))
    torch.testing.assert_close(model.grad(), torch.tensor([0.5, 0.3, 0.2]).double() @ mean, rtol=1e-6, atol=1e-8)


def test_shared_parameters_get_the_weighted_sum_and_heads_their_own_gradient(model):
    batches, lam = model.batches(), torch.tensor([0.7, 0.0, 2.0], dtype=torch.float64)
    jacobian = model.jacobian(batches)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    fill(model, new(model), batches).combine(lam)
    torch.testing.assert_close(model.grad(), lam @ jacobian + 1)
    heads = torch.cat([g.reshape(-1) for n, b in batches.items() for g in model.gradient(n, *b)[1]])
    torch.testing.assert_close(model.grad(shared=False), heads + 1)


def test_a_tensor_that_no_loss_reaches_keeps_no_gradient(model):
    collector = fill(model, new(model), model.batches())
    collector.combine(torch.ones(3))
    assert model.unused.weight.grad is None
    assert model.blocks[0].weight.grad is not None


def test_micro_batches_are_averaged_once(model):
    parts = model.batches(3)
    collector = new(model)
    for name, xs in parts.items():
        for x in xs:
            collector.add(name, model.loss(name, x))
    collector.reduce()
    jacobian = model.jacobian(parts)  # the mean over the three
    torch.testing.assert_close(collector.gramians().sum(0), jacobian @ jacobian.T)
    collector.combine(torch.ones(3))
    torch.testing.assert_close(model.grad(), jacobian.sum(0))
    assert collector.means[0] == pytest.approx(sum(model.loss("asr", x).item() for x in parts["asr"]) / 3)


@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_the_loss_scale_is_not_in_the_gramian_but_in_the_gradient(model, scale):
    batches = model.batches()
    jacobian = model.jacobian(batches)
    collector = fill(model, new(model), batches, scale_loss=lambda loss: loss * scale)
    torch.testing.assert_close(collector.gramians().sum(0), jacobian @ jacobian.T)
    collector.combine(torch.ones(3))
    torch.testing.assert_close(model.grad(), scale * jacobian.sum(0))
    assert collector.means[0] == pytest.approx(model.loss("asr", *batches["asr"]).item())


def test_with_a_grad_scaler_the_step_is_the_plain_one(make):
    plain, scaled = make(dtype=torch.float32), make(dtype=torch.float32)
    fill(plain, new(plain), plain.batches()).combine(torch.ones(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(scaled.parameters(), lr=1.0)
    before = [p.detach().clone() for p in scaled.parameters()]
    fill(scaled, new(scaled), scaled.batches(), scale_loss=scaler.scale).combine(torch.ones(3))
    scaler.step(optimizer)
    for old, p, q in zip(before, scaled.parameters(), plain.parameters(), strict=True):
        expected = old if q.grad is None else old - q.grad
        torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float64, 1e-14), (torch.float32, 1e-5), (torch.bfloat16, 0.1)], ids=str
)
def test_rows_are_float32_at_least(make, dtype, expected):
    model, exact = make(dtype=dtype), make()
    exact.load_state_dict(model.state_dict())
    batches = model.batches()
    collector = fill(model, new(model), batches)
    want = torch.float64 if dtype == torch.float64 else torch.float32
    assert {g.dtype for g in collector.row(0) if g is not None} == {want}
    jacobian = exact.jacobian({n: [x.double() for x in b] for n, b in batches.items()})
    error = (collector.gramians().sum(0) - jacobian @ jacobian.T).norm() / (jacobian @ jacobian.T).norm()
    assert error < expected
    collector.combine(torch.ones(3))
    assert model.blocks[0].weight.grad.dtype == dtype


def test_the_cost_is_one_forward_and_one_backward_pass_for_each_objective(make):
    for objectives in (("a", "b"), ("a", "b", "c", "d", "e")):
        model = make(objectives)
        collector = fill(model, new(model), model.batches())
        collector.combine(torch.ones(len(objectives)))
        assert model.n_forward == model.n_backward == collector.n_passes == len(objectives)


def test_one_forward_pass_may_serve_all(model):
    x = model.batches()["asr"][0]
    jacobian = model.jacobian({name: [x] for name in model.heads})
    model.n_forward = 0
    collector, hidden = new(model), model.encode(x)
    for name in model.heads:
        collector.add(name, model.decode(name, hidden), retain_graph=name != "ssl")
    collector.reduce()
    collector.combine(torch.ones(3))
    torch.testing.assert_close(model.grad(), jacobian.sum(0))
    assert model.n_forward == 1


@pytest.mark.parametrize("n", [1, 2])
def test_chosen_tensors_change_the_cost_but_not_the_gradient(make, n):
    model, other = make(), make()
    lam = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    fill(model, new(model), model.batches(n)).combine(lam)
    collector = new(other)
    chosen = [i for i, name in enumerate(other.shared()) if name.startswith("blocks.2.")]
    collector.choose(chosen)
    fill(other, collector, other.batches(n))
    assert len(collector.gramians()) == len(chosen)
    assert other.n_backward == 0  # the passes for the weights end in the last block
    collector.combine(lam)
    torch.testing.assert_close(other.grad(), model.grad())
    torch.testing.assert_close(other.grad(shared=False), model.grad(shared=False))
    assert other.n_forward == 3 * n
    assert other.n_backward == 3 * n  # one pass, through the graph of each forward pass once
    assert collector.n_passes == 3 * n + 1


LAM = {0: 0.2, 1: 0.5, 2: 0.3}
WEIGHTS = torch.tensor(list(LAM.values()), dtype=torch.float64)


def committed(model, n=1, counts=None, weights=LAM):
    """A collector that knows the weights beforehand and holds the last block."""
    collector = new(model)
    chosen = [i for i, name in enumerate(model.shared()) if name.startswith("blocks.2.")]
    collector.commit(chosen, weights, counts or dict.fromkeys(LAM, 1), dict.fromkeys(LAM, n))
    return collector


@pytest.mark.parametrize("n", [1, 2])
def test_with_weights_known_beforehand_all_of_a_gradient_counts_at_once(make, n):
    model, other = make(), make()
    whole = fill(model, new(model), model.batches(n))
    whole.combine(WEIGHTS)
    for p in other.parameters():
        p.grad = torch.ones_like(p)
    collector = fill(other, committed(other, n), other.batches(n))
    torch.testing.assert_close(collector.gramians(), whole.gramians()[collector.held])
    torch.testing.assert_close(collector.gramians(cross=n == 2), whole.gramians(cross=n == 2)[collector.held])
    collector.combine(WEIGHTS)
    torch.testing.assert_close(other.grad(), model.grad() + 1)
    torch.testing.assert_close(other.grad(shared=False), model.grad(shared=False) + 1)
    assert other.n_forward == other.n_backward == collector.n_passes == 3 * n  # as the sum


@pytest.mark.parametrize("keeps", [True, False], ids=["chosen", "committed"])
def test_with_weights_known_beforehand_no_graph_outlives_its_pass(model, keeps):
    class Saved:
        def __init__(self, x):
            self.x = x

    saved = []

    def pack(x):
        kept = Saved(x)
        saved.append(weakref.ref(kept))
        return kept

    collector = committed(model)
    if keeps:
        collector.clear()
        collector.choose([4, 5])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.x):
        for name, (x,) in model.batches().items():
            collector.add(name, model.loss(name, x))
            gc.collect()
            assert any(ref() is not None for ref in saved) == keeps
    assert len(saved) > 3


def test_with_weights_known_beforehand_micro_batches_are_averaged(make):
    model, other = make(), make()
    batches = model.batches(3)
    batches["st"] = batches["st"][:1]
    expected = WEIGHTS @ model.jacobian(batches)
    for counts in ({0: 3, 1: 1, 2: 3}, {0: 6, 1: 2, 2: 6}):  # the proportion matters
        other.zero_grad()
        collector = committed(other, counts=counts)
        for name, xs in batches.items():
            for x in xs:
                collector.add(name, other.loss(name, x), scale_loss=lambda loss: 8 * loss)
        collector.reduce()
        collector.combine(WEIGHTS)
        torch.testing.assert_close(other.grad(), 8 * expected)
        heads = torch.cat([g.reshape(-1) for n, b in batches.items() for g in model.gradient(n, *b)[1]])
        torch.testing.assert_close(other.grad(shared=False), 8 * heads)


def test_other_counts_than_the_step_began_with_are_refused(model):
    batches = model.batches()
    collector = committed(model, counts={0: 1, 2: 1})
    with pytest.raises(ValueError, match="objective st: found a loss, expected none"):
        collector.add("st", model.loss("st", *batches["st"]))
    collector.add("asr", model.loss("asr", *batches["asr"]))
    with pytest.raises(ValueError, match=r"found {'asr': 1, 'ssl': 0}, expected {'asr': 1, 'ssl': 1}.*delayed: false"):
        collector.reduce()


def test_what_has_no_weight_beforehand_may_be_absent_or_infinite(make):
    model, other = make(), make()
    batches = model.batches()
    fill(model, new(model), batches).combine(torch.tensor([1.0, 0.0, 2.0]))
    for last in (None, 0.0, float("inf")):
        other.zero_grad()
        collector = committed(other, weights={0: 1.0, 1: 0.0, 2: 2.0})
        for name in ("asr", "ssl"):
            collector.add(name, other.loss(name, *batches[name]))
        if last is not None:
            collector.add("st", last * other.loss("st", *batches["st"]))
        collector.reduce()
        collector.combine(torch.tensor([1.0, 2.0] if last is None else [1.0, 0.0, 2.0]))
        assert torch.equal(other.grad(), model.grad())


def test_an_absent_objective_has_zeros_and_no_weight(model):
    batches = {k: v for k, v in model.batches().items() if k != "st"}
    collector = new(model)
    for name, (x,) in batches.items():
        collector.add(name, model.loss(name, x))
    collector.reduce()
    assert collector.present() == [0, 2]
    assert not collector.gramians()[:, 1].any()
    collector.combine(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(model.grad(), torch.tensor([1.0, 2.0]).double() @ model.jacobian(batches))
    assert model.heads["st"].weight.grad is None


def test_frozen_parameters_get_nothing(model):
    model.blocks[0].requires_grad_(False)
    model.heads["st"].requires_grad_(False)
    collector = fill(model, new(model), model.batches())
    collector.combine(torch.ones(3))
    assert model.blocks[0].weight.grad is None
    assert model.heads["st"].weight.grad is None
    assert model.blocks[1].weight.grad is not None


def test_refusals(model):
    with pytest.raises(ValueError, match=r"head of asr: \['blocks.0.weight'\] are shared"):
        Collector(model.shared(), {"asr": [model.blocks[0].weight]})
    collector = new(model)
    with pytest.raises(ValueError, match="unknown objective 'asrr'; the nearest one is 'asr'"):
        collector.add("asrr", model.loss("asr", model.batches()["asr"][0]))
    collector.add("asr", model.loss("asr", model.batches()["asr"][0]), batch=1)
    with pytest.raises(ValueError, match="objective asr: found batch 1, expected 1 batches"):
        collector.reduce()
    with pytest.raises(ValueError, match="some of its 2 batches are missing"):
        collector.reduce({0: 2})


def test_two_processes_with_half_a_batch_each_equal_one(model, tmp_path):
    torch.multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    collector = fill(model, new(model), model.batches(), scale_loss=lambda loss: 8 * loss)
    gramian = collector.gramians()
    collector.combine(torch.tensor([0.2, 0.3, 0.5]))
    for case, products in (("all", gramian), ("chosen", gramian[[4, 5]]), ("alone", gramian)):
        assert all(torch.equal(a, b) for a, b in zip(ours[case], theirs[case], strict=True))
        for found, expected in zip(ours[case], (products, model.grad(), model.grad(shared=False)), strict=True):
            torch.testing.assert_close(found, expected)
