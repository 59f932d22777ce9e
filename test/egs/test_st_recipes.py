"""Recognition and translation together: recipes through their stages on miniatures, configurations, and methods."""

import json
from pathlib import Path

import pytest
import recipe_kit
import torch
import yaml
from recipe_kit import ROOT, check_refused

from bilevel.data.tables import read_scp
from bilevel.espnet.config import training_config
from bilevel.testing.covost2_tree import covost2_tree
from bilevel.testing.mboshi_tree import mboshi_tree

CONF = ROOT / "egs/TEMPLATE/st/conf"
METHODS = sorted(path.stem for path in CONF.glob("method/*.yaml"))
TINY = """
model_conf: {ssl: bestrq, ssl_conf: {codebook_size: 8, p_mask: 0.04, mask_span_frames: 12}}
heads: {st: {decoder_conf: {attention_heads: 2, linear_units: 16, num_blocks: 1}}}
"""
TOKENS = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
NAMES = ("asr_en", "asr_fr", "st_fr_en", "st_en_fr", "ssl")
OBJECTIVES = ["asr_fr", "asr_de", "st_fr_en", "st_de_en"]


@pytest.fixture(scope="module")
def covost2(tmp_path_factory):
    """Two languages of CoVoST 2 through all stages; the recipe's folder, the options and the log."""
    folder = tmp_path_factory.mktemp("covost2")
    recipe = recipe_kit.write_configs(folder / "recipe")
    (recipe / "tiny_st.yaml").write_text(TINY)
    options = {"src": covost2_tree(folder, langs=("fr", "de"), n_clips=3), "langs": "fr de", "st_tag": "vm"}
    options |= {"objectives": " ".join([*OBJECTIVES, "ssl"]), "method": "vm_asr", "allow_overlap": "true"}
    options |= {"token_type": "char", "st_token_type": "char", "st_config": "train_small tiny tiny_st"}
    options |= {"stop_stage": 14, "max_bad_share": 0.5}
    return recipe, options, recipe_kit.run("covost2/st1", recipe, **options)


def test_miniature_covost2_from_clips_to_bleu_and_packed_models(covost2):
    recipe, _, _ = covost2
    exp = recipe / "exp/vm"
    result = json.loads((exp / "result.json").read_text())
    metrics = {"asr": {"wer", "cer"}, "st": {"bleu", "chrf"}}
    wanted = {
        (name, f"{name.split('_')[1]}_{part}", metric)
        for name in OBJECTIVES
        for part in ("dev", "test")
        for metric in metrics[name.split("_")[0]]
    }
    assert {(row["objective"], row["set"], row["metric"]) for row in result["results"]} == wanted
    assert len(result["results"]) == len(wanted)
    # A step: two batches of five objectives; the scale of self-supervision leaves 0 in epoch 1.
    assert (result["method"], result["cost"]["updates"], result["cost"]["passes"]) == ("vm_asr", 4, 4 * 10)
    for name in OBJECTIVES:
        assert (exp / name / "packed.zip").exists()
    refs = read_scp(exp / "decode_translation_st_fr_en/fr_test/ref")
    assert refs == read_scp(recipe / "dump/raw/fr_test/text.en")
    assert json.loads((exp / "conflict.json").read_text())["objectives"] == [*OBJECTIVES, "ssl"]
    table = (recipe / "exp/RESULTS.md").read_text()
    assert "BLEU" in table
    assert "fr_test" in table
    assert "|vm_asr|translation|st_fr_en, st_de_en|" in table


def test_a_second_call_skips_what_is_done(covost2):
    recipe, options, _ = covost2
    before = (recipe / "exp/vm/latest.pth").stat().st_mtime_ns
    log = recipe_kit.run("covost2/st1", recipe, **options)
    assert log.count("skip: ") >= 6 + 1 + 4 + 1 + 1 + 8 + 4 + 4
    assert (recipe / "exp/vm/latest.pth").stat().st_mtime_ns == before


def test_mboshi_takes_files_whose_headers_promise_too_much(tmp_path):
    recipe = tmp_path / "recipe"
    log = recipe_kit.run("mboshi_french/st1", recipe, src=mboshi_tree(tmp_path, odd=True), stop_stage=3)
    assert "1 shorter than their headers say, by at most 2." in log
    kept = [read_scp(recipe / "dump/raw/org" / name / "wav.scp") for name in ("mb_train", "mb_dev", "mb_test")]
    assert sum(map(len, kept)) == 60 + 3 + 6


def build(config: dict, tmp_path: Path):
    from bilevel.espnet.moo_step import build_levels
    from bilevel.espnet.moo_task import MultiObjectiveTask

    streams = {name: {} if name == "ssl" else {"tokens": TOKENS} for name in NAMES}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"streams": streams}, sort_keys=False))
    options = ["--config", str(tmp_path / "config.yaml"), "--output_dir", "unused"]
    args = MultiObjectiveTask.get_parser().parse_args(options)
    with torch.device("meta"):
        model = MultiObjectiveTask.build_model(args)
        return args, model, build_levels(model, args.moo_conf, args.max_epoch)


def config_of(method: str, *deltas: str) -> dict:
    return training_config(
        [CONF / "train_st.yaml", *(CONF / f"{d}.yaml" for d in deltas), CONF / f"method/{method}.yaml"], []
    )


@pytest.mark.parametrize("delta", [(), ("train_small",)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_and_has_each_objective_in_one_level(method, delta, tmp_path):
    _, model, levels = build(config_of(method, *delta), tmp_path)
    assert sorted(name for level in levels.levels for name in level.objectives) == sorted(NAMES)
    n_millions = sum(p.numel() for p in model.shared_params().values()) / 1e6
    assert (80 < n_millions < 120) if not delta else (0.5 < n_millions < 2)


def test_methods_are_what_the_paper_says(tmp_path):
    """At full length: slopes of 0.02 an epoch, caps of 1.5 and who is on which level."""
    levels = {method: build(config_of(method), tmp_path)[2] for method in METHODS}
    names = {method: [(lv.name, lv.objectives) for lv in found.levels] for method, found in levels.items()}
    asr, st = ["asr_en", "asr_fr"], ["st_fr_en", "st_en_fr"]
    assert names["vm_asr"] == [("recognition", asr), ("translation", st), ("self_supervised", ["ssl"])]
    assert names["vm_st"] == [("translation", st), ("recognition", asr), ("self_supervised", ["ssl"])]
    assert names["language"][0] == ("english", ["asr_en", "st_en_fr"])
    assert names["vs"] == [("all", list(NAMES))]
    vc = [levels["vc"].scales(epoch)["self_supervised"] for epoch in (0, 50, 75, 199)]
    assert vc == pytest.approx([0, 1.0, 1.5, 1.5])
    vm = [levels["vm_asr"].scales(epoch) for epoch in (0, 50, 75, 199)]
    assert [s["translation"] for s in vm] == pytest.approx([0.1, 1.1, 1.5, 1.5])
    assert [s["self_supervised"] for s in vm] == pytest.approx([0, 1.1, 2.25, 2.25])
    control = [levels["vc_scaled"].scales(epoch)["self_supervised"] for epoch in (0, 40, 75, 199)]
    assert control == pytest.approx([levels["vm_asr"].scales(e)["self_supervised"] for e in (0, 40, 75, 199)])
    assert [sorted(levels["two_stage"].active(e)) for e in (132, 133)] == [["ssl"], sorted([*asr, *st])]


def test_schedules_fit_a_short_training(tmp_path):
    """Nine epochs: VM's nested scale and its control agree at the points of the latter, and stages are thirds."""
    levels = {m: build(config_of(m, "train_small"), tmp_path)[2] for m in ("vm_asr", "vc_scaled", "two_stage")}
    for share in (0, 0.1, 0.2, 0.3, 0.35, 0.375, 1):
        found = {m: levels[m].scales(share * 9)["self_supervised"] for m in ("vm_asr", "vc_scaled")}
        assert found["vc_scaled"] == pytest.approx(found["vm_asr"], abs=1e-9), share
    assert [sorted(levels["two_stage"].active(e)) for e in (5.99, 6)] == [
        ["ssl"],
        sorted(n for n in NAMES if n != "ssl"),
    ]


def test_a_second_stage_has_a_learning_rate_of_its_own(tmp_path):
    from bilevel.espnet.trainer import build_plan
    from bilevel.optim.schedule import StageRate

    args, _, _ = build(config_of("two_stage", "train_small"), tmp_path)
    plan, rate = build_plan(args), StageRate(**args.stage_lr_conf)
    factors = [rate.factor(plan.stage(step), plan.progress(step)) for step in range(plan.n_steps)]
    assert plan.n_steps == 9 * 200
    assert factors[1199] < 0.02
    assert factors[1200 + 59] == factors[1200 + 100] == 1
    assert factors[-1] < 0.02


def test_all_methods_take_equally_many_batches_of_an_objective(tmp_path):
    from bilevel.espnet.moo_step import batches_per_step

    for method in METHODS:
        args, _, levels = build(config_of(method), tmp_path)
        found = batches_per_step(levels, args.moo_conf)
        assert set(found.values()) == {2}, method


@pytest.mark.parametrize("typo", ["moo_conf: {nestd: true}", "heads: {st: {decoder_cnf: 2}}", "head_lr: 2"])
def test_a_key_that_nobody_reads_is_an_error(typo, tmp_path, capsys):
    config = config_of("vc", "train_small")
    config["moo_conf"] = dict(config["moo_conf"])
    check_refused(typo, config, lambda given: build(given, tmp_path), capsys)


def test_sentences_of_a_level_need_their_objectives(tmp_path):
    config = config_of("vc", "train_small")
    config["moo_conf"]["levels"] = config["moo_conf"]["levels"][:1]
    with pytest.raises(ValueError, match="expected each of"):
        build(config, tmp_path)
