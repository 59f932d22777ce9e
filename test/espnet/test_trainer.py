import math

import pytest
import torch
from asr_kit import Recorder, snapshot
from torch.utils.flop_counter import FlopCounterMode


def grads_by_hand(model, batch):
    """Gradients of both levels, computed apart."""
    names, params = zip(*model.named_parameters(), strict=True)
    found = []
    for level, data in batch.items():
        loss, *_ = model(level=level, **data)
        found.append(dict(zip(names, torch.autograd.grad(loss.sum(), params, allow_unused=True), strict=True)))
    return found


def combined(model, batch, gamma):
    """grad f + gamma grad g on shared parameters, plain gradients on the heads."""
    f, g = grads_by_hand(model, batch)
    shared = {n for n in f if f[n] is not None and g[n] is not None}
    assert shared
    return {n: f[n] + gamma * g[n] if n in shared else f[n] if f[n] is not None else g[n] for n in f}


def close(found, expected, factor=1.0):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value * factor, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


class Counts:
    """How often the encoder ran forwards and backwards."""

    def __init__(self, model):
        self.forward = self.backward = 0
        model.encoder.register_forward_hook(self._count_forward)
        model.encoder.after_norm.register_full_backward_hook(self._count_backward)

    def _count_forward(self, *_):
        self.forward += 1

    def _count_backward(self, *_):
        self.backward += 1


@pytest.mark.parametrize("ssl", ["bestrq", "infonce"])
@pytest.mark.parametrize(("explore", "joint", "expected"), [(0, 1, 2), (1, 0, 1), (0, 0, 1)])
def test_a_step_takes_one_pass_of_each_level_of_its_stage(kit, explore, joint, expected, ssl):
    args = kit.plan(explore, joint, 3)
    model = kit.model(model_conf={"ssl": ssl, "ssl_conf": {}})
    counts = Counts(model)
    _, reporter = kit.epoch(model, kit.steps(args), args, Recorder(model))
    assert (counts.forward, counts.backward) == (3 * expected, 3 * expected)
    assert reporter.get_value("train", "passes") == expected


def test_a_joint_step_has_the_operations_of_its_two_levels(kit):
    flops = []
    for explore, joint in ((1, 0), (0, 0), (0, 1)):
        args = kit.plan(explore, joint, 1)
        model = kit.model()
        with FlopCounterMode(display=False) as counter:
            kit.epoch(model, kit.steps(args), args, Recorder(model))
        flops.append(counter.get_total_flops())
    lower, upper, both = flops
    assert min(lower, upper) > 0
    assert both == lower + upper


def test_the_gradient_is_grad_f_plus_gamma_grad_g(kit):
    args = kit.plan(0, 1, 4, penalty_conf={"gamma_max": 0.8}, grad_clip=0)
    model = kit.model()
    recorder = Recorder(model)
    steps = kit.steps(args)
    _, reporter = kit.epoch(model, steps, args, recorder)
    for k, seen in enumerate(recorder.seen):
        close(seen, combined(model, steps[k][1], 0.8 * (k + 1) / 4))
    assert len(recorder.seen) == 4
    assert reporter.get_value("train", "gamma") == pytest.approx(0.8 * (1 + 2 + 3 + 4) / 16)


def test_each_stage_trains_its_own_parameters(kit):
    args = kit.plan(1 / 3, 1 / 3, 3)
    model = kit.model()
    recorder = Recorder(model)
    kit.epoch(model, kit.steps(args), args, recorder)
    explore, joint, finetune = recorder.seen
    assert {n for n, g in explore.items() if g is None} == {n for n in explore if n.startswith("ctc.")}
    assert all(g is not None for g in joint.values())
    assert {n for n, g in finetune.items() if g is None} == {n for n in finetune if n.startswith("ssl.")}


def test_gradients_of_a_group_are_averaged(kit):
    args = kit.plan(0, 1, 2, accum_grad=2, penalty_conf={"gamma_max": 0.5, "ramp": "constant"}, grad_clip=0)
    model = kit.model()
    recorder = Recorder(model)
    steps = [kit.steps(args)[0], kit.steps(args, ["train-1"], ["unlab-5", "unlab-6"])[0]]
    _, reporter = kit.epoch(model, steps, args, recorder)
    assert len(recorder.seen) == 1
    first, second = (combined(model, batch, 0.5) for _, batch in steps)
    close(recorder.seen[0], {n: (first[n] + second[n]) / 2 for n in first})
    # Norms are reported as if there were no accumulation.
    f = grads_by_hand(model, steps[1][1])[0]
    norm = math.sqrt(sum(float(g.square().sum()) for g in f.values() if g is not None))
    assert reporter.get_value("train", "grad_norm_upper") == pytest.approx(norm, rel=1e-3)


def test_a_partial_group_does_not_leak_into_the_next_epoch(kit):
    args = kit.args(plan_conf={"explore": 0, "joint": 0}, max_epoch=2, num_iters_per_epoch=3, accum_grad=2, grad_clip=0)
    model = kit.model()
    recorder = Recorder(model)
    steps = kit.steps(args)[:3]
    kit.epoch(model, steps, args, recorder)
    kit.epoch(model, steps, args, recorder, epoch=2)
    assert len(recorder.seen) == 2
    close(recorder.seen[1], {n: g for n, g in recorder.seen[0].items() if g is not None})


def test_clipping_shrinks_the_summed_gradient(kit):
    options = {"penalty_conf": {"gamma_max": 3.0, "ramp": "constant", "normalise": False}}
    grads = {}
    for clip in (0.0, 0.05):
        args = kit.plan(0, 1, 1, grad_clip=clip, **options)
        model = kit.model()
        recorder = Recorder(model)
        _, reporter = kit.epoch(model, kit.steps(args), args, recorder)
        grads[clip] = torch.cat([g.flatten() for g in recorder.seen[0].values()])
        assert reporter.get_value("train", "clip") == (100 if clip else 0)
        assert reporter.get_value("train", "grad_norm") == pytest.approx(float(grads[0.0].norm()), rel=1e-5)
    assert float(grads[0.05].norm()) == pytest.approx(0.05, rel=1e-3)
    torch.testing.assert_close(grads[0.05] / 0.05, grads[0.0] / grads[0.0].norm(), rtol=1e-3, atol=1e-6)


def test_normalisation_divides_the_joint_gradient_above_gamma_one(kit):
    args = kit.plan(0, 1, 1, penalty_conf={"gamma_max": 4.0, "ramp": "constant"}, grad_clip=0)
    model = kit.model()
    recorder = Recorder(model)
    steps = kit.steps(args)
    kit.epoch(model, steps, args, recorder)
    close(recorder.seen[0], combined(model, steps[0][1], 4.0), factor=0.25)


def test_stage_learning_rates_scale_the_schedule_and_leave_it_alone(kit):
    from espnet2.schedulers.warmup_lr import WarmupLR

    factors = {"explore": 2.0, "joint": 0.5, "finetune": 0.25}
    args = kit.plan(1 / 3, 1 / 3, 6, stage_lr_conf=factors)
    model = kit.model()
    recorder, plain = Recorder(model, lr=0.01), torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=0.01)
    scheduler, plain_scheduler = WarmupLR(recorder, warmup_steps=4), WarmupLR(plain, warmup_steps=4)
    _, reporter = kit.epoch(model, kit.steps(args), args, recorder, scheduler)
    expected = []
    for stage in ("explore", "explore", "joint", "joint", "finetune", "finetune"):
        expected.append(plain.param_groups[0]["lr"] * factors[stage])
        plain.step()
        plain_scheduler.step()
    assert recorder.lrs == pytest.approx(expected)
    assert recorder.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
    assert reporter.get_value("train", "optim0_lr0") == pytest.approx(sum(expected) / 6)


def test_stage_learning_rates_do_not_compound(kit):
    args = kit.plan(0.5, 0, 4, stage_lr_conf={"explore": 0.5, "joint": 9.0, "finetune": 0.1})
    model = kit.model()
    recorder = Recorder(model, lr=1e-3)
    kit.epoch(model, kit.steps(args), args, recorder)
    assert recorder.lrs == pytest.approx([5e-4, 5e-4, 1e-4, 1e-4])
    assert recorder.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("level", ["upper", "lower"])
@pytest.mark.parametrize("amp", [False, True])
def test_a_nan_in_one_level_skips_the_step_for_both(kit, level, amp):
    args = kit.plan(0, 1, 3, accum_grad=1)
    model = kit.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0) if amp else None
    steps = kit.steps(args)
    kit.epoch(model, steps[:1], args, optimizer, scaler=scaler)
    before, moments = snapshot(model), optimizer.state_dict()["state"][0]["exp_avg"].clone()
    bad = kit.steps(args)[:1]
    bad[0][1][level]["speech"][0, 100] = math.nan
    all_skipped, reporter = kit.epoch(model, bad, args, optimizer, scaler=scaler)
    assert all_skipped
    assert reporter.get_value("train", "skipped") == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments)
    if amp:
        assert scaler.get_scale() == 32.0
    # The next good step goes on, and is counted.
    all_skipped, reporter = kit.epoch(model, [bad[0], steps[1]], args, optimizer, scaler=scaler)
    assert not all_skipped
    assert reporter.get_value("train", "skipped") == 0.5
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_too_many_bad_steps_in_a_row_stop_the_training(kit):
    args = kit.plan(0, 1, 9, max_skipped_steps=2)
    model = kit.model()
    good, bad = kit.steps(args), kit.steps(args)
    for _, batch in bad:
        batch["upper"]["speech"][0, 100] = math.nan
    _, reporter = kit.epoch(model, [*bad[:2], good[2], *bad[3:5], good[5]], args, Recorder(model))
    assert reporter.get_value("train", "skipped") == pytest.approx(4 / 6)
    with pytest.raises(RuntimeError, match=r"step 3: 3 non-finite steps in a row.*train-0"):
        kit.epoch(model, [good[0], *bad[1:]], args, Recorder(model))


class CountingScaler(torch.amp.GradScaler):
    """Counts update() and remembers where in the order of steps it came."""

    def __init__(self, **kwargs):
        super().__init__("cpu", **kwargs)
        self.calls = []

    def step(self, optimizer, *args, **kwargs):
        self.calls.append("step")
        return super().step(optimizer, *args, **kwargs)

    def update(self, new_scale=None):
        self.calls.append("update")
        return super().update(new_scale)


def test_mixed_precision_updates_the_scale_once_a_step_and_keeps_the_gradients(kit):
    args = kit.plan(1 / 3, 1 / 3, 3, penalty_conf={"gamma_max": 0.5})
    found = {}
    for scaler in (None, CountingScaler(init_scale=1024.0, growth_interval=2)):
        model = kit.model()
        recorder = Recorder(model, lr=0.05)
        _, reporter = kit.epoch(model, kit.steps(args), args, recorder, scaler=scaler)
        norms = [reporter.get_value("train", n) for n in ("grad_norm", "grad_norm_upper", "grad_norm_lower")]
        found[scaler is not None] = recorder.seen, norms
    assert scaler.calls == ["step", "update"] * 3
    assert scaler.get_scale() == 2048.0  # grew after two good steps
    for plain, scaled in zip(found[False][0], found[True][0], strict=True):
        close(scaled, {n: g for n, g in plain.items() if g is not None})
    assert found[True][1] == pytest.approx(found[False][1], rel=1e-4)


def test_a_disabled_scaler_does_not_let_a_nan_through(kit):
    # What ESPnet makes of --use_amp on a machine without a GPU.
    args = kit.plan(0, 1, 1)
    model = kit.model()
    before = snapshot(model)
    bad = kit.steps(args)
    bad[0][1]["lower"]["speech"][0, 100] = math.nan
    kit.epoch(model, bad, args, Recorder(model, lr=1.0), scaler=torch.amp.GradScaler("cpu", enabled=False))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
