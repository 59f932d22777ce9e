import itertools

import pytest

from bilevel.optim.schedule import Penalty, Plan, StageRate

PLANS = [
    Plan(n_steps=n, explore=explore, joint=joint, explore_when=when, n_steps_per_epoch=length)
    for n, length in ((1, 1), (12, 4), (30, 7), (60, 10), (97, 13))
    for explore, joint in ((0, 0), (0, 1), (1, 0), (0.5, 0), (1 / 3, 1 / 3), (0.25, 0.75), (0.1, 0.07), (0.9, 0.1))
    for when in ("once", "every_epoch")
]


def stages(plan):
    return [plan.stage(step) for step in range(plan.n_steps)]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_stages_partition_the_steps_in_the_shares_asked_for(plan):
    found = stages(plan)
    n_a, n_b, n_c = (found.count(s) for s in ("explore", "joint", "finetune"))
    assert (n_a, n_b) == (plan.n_explore, plan.n_joint)
    assert n_a + n_b + n_c == plan.n_steps
    assert abs(n_a - plan.explore * plan.n_steps) <= 0.5
    assert abs(n_a + n_b - (plan.explore + plan.joint) * plan.n_steps) <= 0.5
    # Stage C is the end, and nothing follows it.
    assert found[n_a + n_b :] == ["finetune"] * n_c


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_positions_count_the_batches_that_were_taken(plan):
    n_upper = n_lower = 0
    for step, stage in enumerate(stages(plan)):
        assert plan.positions(step) == (n_upper, n_lower)
        n_upper += stage != "explore"
        n_lower += stage != "finetune"
    assert plan.positions(plan.n_steps) == (n_upper, n_lower)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_gamma_grows_linearly_over_the_joint_steps_and_ends_at_its_maximum(plan):
    penalty = Penalty(gamma_start=0.25, gamma_max=1.25)
    gammas = [penalty.gamma(plan.progress(step)) for step, s in enumerate(stages(plan)) if s == "joint"]
    assert gammas == pytest.approx([0.25 + (k + 1) / len(gammas) for k in range(len(gammas))])
    if gammas:
        assert gammas[-1] == penalty.gamma_max


def test_once_explores_first():
    plan = Plan(n_steps=12, explore=1 / 3, joint=1 / 3)
    assert stages(plan) == ["explore"] * 4 + ["joint"] * 4 + ["finetune"] * 4


def test_every_epoch_opens_with_its_share_of_exploration():
    plan = Plan(n_steps=20, explore=0.25, joint=0.5, explore_when="every_epoch", n_steps_per_epoch=5)
    found = stages(plan)
    # 5 exploration steps over 3 epochs: 1.67 an epoch, rounded so that they add up.
    per_epoch = [found[k : k + 5] for k in range(0, 20, 5)]
    assert [epoch.count("explore") for epoch in per_epoch] == [2, 1, 2, 0]
    for epoch in per_epoch[:3]:
        assert epoch == sorted(epoch)  # "explore" before "joint"
    assert per_epoch[3] == ["finetune"] * 5


@pytest.mark.parametrize("plan", [p for p in PLANS if p.explore_when == "every_epoch"], ids=str)
def test_every_epoch_spreads_exploration_evenly(plan):
    n_ab, length = plan.n_explore + plan.n_joint, plan.n_steps_per_epoch
    found = stages(plan)[:n_ab]
    for start in range(0, n_ab, length):
        epoch = found[start : start + length]
        share = plan.n_explore * len(epoch) / n_ab
        assert abs(epoch.count("explore") - share) <= 1
        assert [s for s, _ in itertools.groupby(epoch)] in (["explore"], ["joint"], ["explore", "joint"])


def test_constant_ramp_is_the_maximum_throughout():
    penalty = Penalty(gamma_max=0.7, gamma_start=0.1, ramp="constant")
    assert {penalty.gamma(r / 10) for r in range(11)} == {0.7}


def test_scale_bounds_the_step_only_above_one():
    assert [Penalty().scale(g) for g in (0.0, 0.5, 1.0, 2.0, 8.0)] == [1.0, 1.0, 1.0, 0.5, 0.125]
    assert Penalty(normalise=False).scale(8.0) == 1.0


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"explore": -0.1}, r"explore -0.1 \+ joint 0.0: expected shares"),
        ({"explore": 0.6, "joint": 0.5}, "together at most 1"),
        ({"explore_when": "never"}, "'never': expected once or every_epoch"),
        ({"explore_when": "every_epoch"}, "expected n_steps_per_epoch"),
    ],
)
def test_impossible_plans_are_refused(conf, message):
    with pytest.raises(ValueError, match=message):
        Plan(n_steps=10, **conf)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"gamma_max": -1.0}, "gamma_max -1.0: expected values >= 0"),
        ({"gamma_start": -0.5}, "gamma_start -0.5"),
        ({"ramp": "cosine"}, "'cosine': expected linear or constant"),
    ],
)
def test_impossible_penalties_are_refused(conf, message):
    with pytest.raises(ValueError, match=message):
        Penalty(**conf)


def test_rate_warms_up_holds_and_decays_anew_in_each_stage():
    rate = StageRate(explore=2.0, finetune=0.5, warmup=0.1, decay=0.5, final=0.0)
    assert [rate.factor("joint", r) for r in (0.05, 0.1, 0.5, 0.75, 1.0)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert rate.factor("explore", 0.3) == 2.0
    assert rate.factor("finetune", 0.75) == 0.25


@pytest.mark.parametrize(("explore", "joint"), [(0, 0), (0, 1), (0.5, 0), (1 / 3, 1 / 3), (0.2, 0.7)])
def test_every_split_into_stages_has_the_same_budget_of_learning_rate(explore, joint):
    rate = StageRate(warmup=0.1, decay=0.5)
    plan = Plan(n_steps=6000, explore=explore, joint=joint)
    mean = sum(rate.factor(plan.stage(k), plan.progress(k)) for k in range(6000)) / 6000
    # Trapezoid: 0.1 / 2 + 0.4 + 0.5 (1 + final) / 2.
    assert mean == pytest.approx(0.05 + 0.4 + 0.2525, abs=1e-3)


def test_rate_refuses_what_makes_no_shape():
    with pytest.raises(ValueError, match="at most 1 together"):
        StageRate(warmup=0.6, decay=0.5)
    with pytest.raises(ValueError, match=">= 0"):
        StageRate(joint=-1)
