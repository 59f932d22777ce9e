"""Every yaml of pre-training, with every method it serves, builds its model; a key that nobody reads is an error."""

import itertools

import pytest
import torch
import yaml
from recipe_kit import ROOT, check_refused

from bilevel.espnet.config import training_config

CONF = ROOT / "egs/TEMPLATE/ssl/conf"
METHODS = sorted(path.stem for path in CONF.glob("method/*.yaml"))
WITH_CODES = sorted(set(METHODS) - {"infonce"})
CONTROLS = ("cssl_continued_small", "cssl_restarted_small")
SERVES = [
    *((method, []) for method in METHODS),
    *((method, ["train_small"]) for method in METHODS),
    *((method, ["train_small", "codes_small"]) for method in WITH_CODES),
    *((method, ["train_ptloc"]) for method in ("bestrq", "birq")),
    ("bestrq", ["train_ptloc", "ptloc"]),
    *(("bestrq", ["train_small", "codes_small", name]) for name in ("ptloc_small", *CONTROLS)),
    *(("bestrq", ["train_ptloc", name]) for name in ("cssl_continued", "cssl_restarted")),
    ("birq", ["train_birq_c3"]),
    ("birq", ["gpu"]),
    ("birq", ["train_birq_c3", "gpu"]),
]


def build(config, tmp_path):
    from bilevel.espnet.ssl_task import BilevelSSLTask

    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    args = BilevelSSLTask.get_parser().parse_args(["--config", str(file), "--output_dir", "unused"])
    with torch.device("meta"):
        return args, BilevelSSLTask.build_model(args).to("meta")


def config_of(method, deltas):
    return training_config(
        [CONF / "train_ssl.yaml", CONF / f"method/{method}.yaml", *(CONF / f"{d}.yaml" for d in deltas)], []
    )


def encoder_millions(model):
    return sum(p.numel() for p in model.encoder.parameters()) / 1e6


@pytest.mark.parametrize(("method", "deltas"), SERVES, ids=lambda v: v if isinstance(v, str) else "+".join(v) or "base")
def test_configuration_builds_model_solver_and_schedule(method, deltas, tmp_path):
    from bilevel.espnet.health import Health
    from bilevel.espnet.solvers import ScheduledSolver
    from bilevel.optim.schedule import Plan, StageRate

    args, model = build(config_of(method, deltas), tmp_path)
    assert encoder_millions(model) > 0.5
    assert ScheduledSolver(args.solver, args.solver_conf, args.penalty_conf).solver.n_inner == (
        1 if {"ptloc", "ptloc_small"} & set(deltas) else 0
    )
    plan, rate = Plan(n_steps=1000, n_steps_per_epoch=10, **args.plan_conf), StageRate(**args.stage_lr_conf)
    assert {plan.stage(step) for step in range(1000)} == {"explore"}
    assert all(0 < rate.factor("explore", plan.progress(step)) <= 1 for step in range(1000))
    Health(**args.health_conf)


def test_sizes_are_those_of_the_papers(tmp_path):
    """Parameters of the encoder in millions; the papers count the whole model. 256 x 20 frames of 20 ms are 400 ms."""
    for method, deltas, millions in (
        ("birq", [], 155),
        ("birq", ["train_birq_c3"], 275),
        ("bestrq", ["train_ptloc"], 70),
    ):
        _, model = build(config_of(method, deltas), tmp_path)
        assert encoder_millions(model) == pytest.approx(millions, rel=0.1), (method, deltas)
    assert model.frontend.output_size() == 240
    assert model.ssl.quantizer.codebook.shape[-2] == 256


def test_ptloc_halves_its_rate_every_second_epoch_after_forty():
    from bilevel.optim.schedule import StageRate

    rate = StageRate(**config_of("bestrq", ["train_ptloc", "ptloc"])["stage_lr_conf"])
    at = [rate.factor("explore", epoch / 60) for epoch in range(1, 61)]
    assert at[:40] == pytest.approx([1.0] * 40)
    assert [after / before for before, after in itertools.pairwise(at[40:])] == pytest.approx([2**-0.5] * 19)


@pytest.mark.parametrize("typo", ["max_epok: 1", "model_conf: {ssl_conf: {codes: 8}}", "encoder_conf: {num_block: 1}"])
def test_a_misspelt_key_is_refused(typo, tmp_path, capsys):
    check_refused(typo, config_of("bestrq", []), lambda config: build(config, tmp_path), capsys)
