"""Every yaml of every recipe, with every method, builds its model; a key that nobody reads is an error."""

import inspect
from pathlib import Path

import pytest
from recipe_kit import ROOT, check_refused

from bilevel.espnet.config import read_yaml, training_config

TEMPLATE = ROOT / "egs/TEMPLATE/asr/conf"
METHODS = sorted(TEMPLATE.glob("method/*.yaml"))
TRAIN = sorted(p for p in ROOT.glob("egs/*/asr*/conf/train*.yaml") if p != TEMPLATE / "train_asr.yaml")
DECODE = sorted(ROOT.glob("egs/*/*/conf/decode*.yaml"))
DATA = ["--output_dir", "unused", "--token_type", "char", "--train_shape_file", "unused"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "egs"))


def build(config: dict, tmp_path: Path, *options: str):
    """Parse and build as `bilevel train` does, without memory or time for the weights."""
    import torch
    import yaml

    from bilevel.espnet.task import BilevelASRTask

    tokens = tmp_path / "tokens.txt"
    tokens.write_text("\n".join(["<blank>", "<unk>", *"abcdefgh", "<sos/eos>"]) + "\n")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    args = BilevelASRTask.get_parser().parse_args(["--config", str(file), "--token_list", str(tokens), *DATA, *options])
    with torch.device("meta"):
        model = BilevelASRTask.build_model(args)
    return args, model.to("meta")


@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
@pytest.mark.parametrize("delta", [None, *TRAIN], ids=lambda path: name(path) if path else "train_asr")
def test_configuration_builds_model_optimizer_and_plan(delta, method, tmp_path):
    from bilevel.espnet.record import count_params
    from bilevel.espnet.task import BilevelASRTask
    from bilevel.espnet.trainer import build_plan
    from bilevel.optim.penalty import Solver
    from bilevel.optim.schedule import Penalty, StageRate

    files = [TEMPLATE / "train_asr.yaml", *([delta] if delta else []), method]
    args, model = build(training_config(files, []), tmp_path)
    assert count_params(model) > 100_000
    (optimizer,) = BilevelASRTask.build_optimizers(args, model)
    assert optimizer.param_groups[0]["lr"] == args.optim_conf["lr"]
    plan, rate = build_plan(args), StageRate(**args.stage_lr_conf)
    steps = range(0, plan.n_steps, max(1, plan.n_steps // 1000))
    assert all(0 < rate.factor(plan.stage(step), plan.progress(step)) <= 1 for step in steps)
    penalty = dict(args.penalty_conf)
    Solver(weight_lower_head=penalty.pop("weight_lower_head", "one"))
    assert Penalty(**penalty).gamma(1.0) >= 0


@pytest.mark.parametrize(
    "typo",
    ["max_epok: 1", "model_conf: {ctc_wait: 1}", "encoder_conf: {num_block: 1}", "model_conf: {ssl_conf: {codes: 8}}"],
)
def test_a_misspelt_key_is_refused(typo, tmp_path, capsys):
    config = training_config([TEMPLATE / "train_asr.yaml", TEMPLATE / "train_small.yaml"], [])
    check_refused(typo, config, lambda config: build(config, tmp_path), capsys)


@pytest.mark.parametrize("file", DECODE, ids=name)
def test_decoding_options_exist(file):
    from espnet2.bin.asr_inference import Speech2Text

    options = read_yaml(file)
    decoder = options.pop("decoder", "beam")
    assert decoder in ("beam", "greedy")
    known = set(inspect.signature(Speech2Text).parameters)
    assert options.keys() <= (known if decoder == "beam" else set())
