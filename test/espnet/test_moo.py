"""Several objectives through ESPnet's main: model, streams, steps, resume, and plain ESPnet models out of it."""

import argparse
import copy
import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from asr_kit import CONFIG, TOKENS

from bilevel.espnet import moo_launch
from bilevel.espnet.moo_data import Stream
from bilevel.espnet.moo_export import export
from bilevel.espnet.moo_step import ObjectivesStep, build_levels
from bilevel.espnet.moo_task import MultiObjectiveTask, batch_factors, head_conf
from bilevel.espnet.trainer import BilevelTrainer

KEYS = ("frontend", "frontend_conf", "specaug", "normalize", "encoder", "encoder_conf", "optim", "optim_conf")
KEYS += ("batch_type", "batch_size", "grad_clip", "num_workers", "best_model_criterion", "use_matplotlib")
KEYS += ("use_tensorboard",)
DECODER = {"attention_heads": 2, "linear_units": 16, "num_blocks": 1}
MOO = {key: CONFIG[key] for key in KEYS} | {
    "model": "multi_objective",
    "model_conf": {"ssl": "bestrq", "ssl_conf": CONFIG["model_conf"]["ssl_conf"]},
    "heads": {
        "asr": {"model_conf": {"ctc_weight": 1.0}},
        "st": {"model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1}, "decoder": "transformer", "decoder_conf": DECODER},
    },
    "max_epoch": 3,
    "num_iters_per_epoch": 3,
    "keep_nbest_models": 1,
}
ALL = {"name": "all", "objectives": ["*"], "weighting": "mean"}
VC = [
    {"name": "supervised", "objectives": ["asr_*", "st_*"], "weighting": "modo"},
    {"name": "self_supervised", "objectives": ["ssl"], "scale": [[1, 0.0], [2, 1.0]]},
]
TWO_STAGE = [
    {"name": "fine_tuning", "objectives": ["asr_*", "st_*"], "per": "training", "scale": [[0.34, 0], [0.34, 1]]},
    {"name": "pre_training", "objectives": ["ssl"], "per": "training", "scale": [[0.34, 1], [0.34, 0]]},
]


@pytest.fixture(scope="module")
def streams(corpus):
    """The labelled set, translated by reading it backwards; one utterance lacks a translation."""
    for name in ("train", "dev"):
        rows = {key: corpus.text[key][::-1] for key in corpus.ids[name]}
        rows[corpus.ids[name][1]] = ""
        corpus._write(f"{name}/text.xx", rows)
    tokens = corpus.root / "tokens"
    tokens.mkdir()
    (tokens / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    train, valid = (corpus.root / "train",), (corpus.root / "dev",)
    return [
        Stream("asr_aa", train, valid, tokens, "char"),
        Stream("st_aa_xx", train, valid, tokens, "char"),
        Stream("ssl", (*train, corpus.root / "unlab"), valid),
    ]


@pytest.fixture(scope="module")
def run(streams, tmp_path_factory):
    """Train with changes of the configuration; returns the folder."""

    def train(levels, out=None, moo=None, **changes):
        folder = out or tmp_path_factory.mktemp("moo")
        args = argparse.Namespace(stats_dir=folder / "stats", exp_dir=folder / "exp", pretrained=None, seed=3, ngpu=0)
        moo_launch.write_streams(streams, args.stats_dir)
        confs = {s.name: moo_launch.stream_conf(s, args.stats_dir) for s in streams}
        config = MOO | {"moo_conf": {"levels": levels} | (moo or {}), "streams": confs} | changes
        (folder / "given.yaml").write_text(yaml.safe_dump(config))
        level = logging.getLogger().level
        moo_launch.train(folder / "given.yaml", args, streams)
        logging.getLogger().setLevel(level)
        return folder / "exp"

    return train


@pytest.fixture(scope="module")
def trained(run):
    return run(VC, moo={"monitor": {"every": 2}})


def weights(exp_dir, name="latest.pth"):
    return torch.load(exp_dir / name, weights_only=True)


def curves(exp_dir):
    return [json.loads(line) for line in (exp_dir / "train.jsonl").read_text().splitlines()]


@pytest.fixture
def model(trained):
    return MultiObjectiveTask.build_model_from_file(trained / "config.yaml", trained / "latest.pth", "cpu")[0]


@pytest.fixture
def batch(corpus):
    """A batch of each objective."""
    labelled = corpus.upper(["train-0", "train-3"])
    return {"asr_aa": [labelled], "st_aa_xx": [labelled], "ssl": [corpus.lower(["unlab-1", "unlab-2"])]}


def test_streams_hold_what_has_text_and_name_what_is_wrong(streams, corpus, tmp_path):
    for stream in streams:
        stream.write(tmp_path / stream.name)
    keys = {
        n: [line.split()[0] for line in (tmp_path / n / "train/shape").open()] for n in ("asr_aa", "st_aa_xx", "ssl")
    }
    assert keys["asr_aa"] == sorted(corpus.ids["train"])
    assert keys["st_aa_xx"] == sorted(set(corpus.ids["train"]) - {"train-1"})
    assert keys["ssl"] == sorted(corpus.ids["train"] + corpus.ids["unlab"])
    train, valid, tokens = streams[0].train, streams[0].valid, streams[0].tokens
    with pytest.raises(ValueError, match=r"text.yy: no such file, which st_aa_yy predicts"):
        Stream("st_aa_yy", train, valid, tokens, "char").write(tmp_path / "x")
    with pytest.raises(ValueError, match="train-0 is in two of"):
        Stream("ssl", train + train, valid).write(tmp_path / "x")
    for name, given in (("mt_aa", tokens), ("asr", tokens), ("st_aa", tokens), ("asr_aa", None), ("ssl", tokens)):
        with pytest.raises(ValueError, match="objective"):
            Stream(name, train, valid, given, "char")
    with pytest.raises(ValueError, match="token type 'phn': expected bpe, char or word"):
        Stream("asr_aa", train, valid, tokens, "phn")
    words = ("train", "a,b", "t", "char")
    assert Stream.read("asr_aa", *words) == Stream(
        "asr_aa", (Path("train"),), (Path("a"), Path("b")), Path("t"), "char"
    )
    assert Stream.read("ssl", "train", "dev", "-", "-") == Stream("ssl", (Path("train"),), (Path("dev"),))


def test_statistics_of_a_whole_set_are_refused(run):
    with pytest.raises(ValueError, match="no statistics over several objectives; use utterance_mvn"):
        run([ALL], normalize="global_mvn")


def test_an_exported_objective_is_an_espnet_model_with_the_same_loss(trained, model, batch):
    """Oracle: ESPnet's recognition model as a whole, frames to loss."""
    from espnet2.tasks.asr import ASRTask

    for name in ("asr_aa", "st_aa_xx"):
        whole, args = ASRTask.build_model_from_file(*export(trained, "latest.pth", name), "cpu")
        given = batch[name][0]
        for mode in (whole, model):
            mode.eval()
        loss, _, n_utterances = whole(**given)
        ours, stats, n_tokens = model(objective=name, **given)
        assert int(n_tokens) == int(given["text_lengths"].sum())
        torch.testing.assert_close(ours * n_tokens, loss * n_utterances)
        torch.testing.assert_close(stats[f"loss_{name}"], ours.detach())
        assert args.token_list == list(TOKENS)
        assert (whole.ctc is None) == (name == "st_aa_xx")
    with pytest.raises(ValueError, match=r"no objective ssl with text; expected one of asr_aa, st_aa_xx"):
        export(trained, "latest.pth", "ssl")


def test_collected_features_are_those_before_normalisation(model, batch):
    given = batch["asr_aa"][0]
    found = model.eval().collect_feats(**given)
    expected, lens = model.frontend(given["speech"], given["speech_lengths"])
    torch.testing.assert_close(found["feats"], expected)
    assert torch.equal(found["feats_lengths"], lens)
    normalised, _ = model._features(given["speech"], given["speech_lengths"], augment=False)
    assert not torch.allclose(found["feats"], normalised)


def test_a_step_on_the_mean_is_the_mean_gradient_and_heads_get_their_own(model, batch):
    options = argparse.Namespace(moo_conf={"levels": [ALL]}, max_epoch=1, health=None)
    model.eval()  # the decoder's dropout
    step = ObjectivesStep(options, model, torch.enable_grad, distributed=False)
    moment = argparse.Namespace(epoch=0.0, closes_update=True)
    report = step.backward(batch, moment, lambda loss: loss)
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    losses = {name: model(objective=name, **parts[0])[0].squeeze() for name, parts in batch.items()}
    sum(losses.values()).backward()
    n_shared = 0
    for name, p in model.named_parameters():
        shared = not name.startswith(("heads.", "ssl."))
        n_shared += shared
        torch.testing.assert_close(found[name], p.grad / 3 if shared else p.grad, rtol=1e-4, atol=1e-6)
    assert n_shared > 20
    assert report["weight_ssl"] == pytest.approx(1 / 3)


def test_micro_batches_of_one_update_are_their_mean(model, batch, corpus):
    other = {name: [corpus.upper(["train-2", "train-5"])] for name in ("asr_aa", "st_aa_xx")}
    other["ssl"] = [corpus.lower(["unlab-0", "unlab-3"])]
    options = argparse.Namespace(moo_conf={"levels": [ALL], "batches": 2}, max_epoch=1, health=None)
    found = []
    for parts in ([batch, other], [{name: batch[name] + other[name] for name in batch}]):
        model.eval().zero_grad()
        step = ObjectivesStep(options, model, torch.enable_grad, distributed=False)
        for i, part in enumerate(parts):
            step.backward(part, argparse.Namespace(epoch=0.0, closes_update=i == len(parts) - 1), lambda loss: loss)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 30
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_growing_penalty_is_trained_where_it_counts_and_costs_are_counted(trained):
    rows = curves(trained)
    assert "loss_ssl" not in rows[0]
    assert "weight_ssl" not in rows[0]
    assert rows[0]["passes"] == 4  # MoDo: two batches of each of two supervised objectives
    assert [row["scale_self_supervised"] for row in rows] == [0, 0, 1]
    assert [row["passes"] for row in rows] == [4, 4, 5]
    for row in rows:
        assert min(row["weight_asr_aa"], row["weight_st_aa_xx"]) > 0
        assert row["mix_asr_aa"] + row["mix_st_aa_xx"] + row.get("mix_ssl", 0) == pytest.approx(1)
        assert -1 <= row["cosine_supervised"] <= 1
        assert row.keys() >= {"valid_loss", "valid_loss_asr_aa", "valid_cer_ctc_asr_aa", "valid_acc_st_aa_xx"}
    members = json.loads((trained / "levels.json").read_text())
    assert members == {"supervised": ["asr_aa", "st_aa_xx"], "self_supervised": ["ssl"]}
    conflict = json.loads((trained / "conflict.json").read_text())
    assert conflict["objectives"] == ["asr_aa", "st_aa_xx", "ssl"]
    assert len(conflict["records"]) == 4  # nine steps, one record every two
    assert json.loads((trained / "cost.json").read_text())["passes"] == 3 * (4 + 4 + 5)


def test_an_interrupted_run_equals_a_straight_one(run, trained, monkeypatch, tmp_path):
    steps = BilevelTrainer.train_one_epoch.__func__

    def interrupted(cls, **kwargs):
        if kwargs["reporter"].get_epoch() == 3:
            raise KeyboardInterrupt
        return steps(cls, **kwargs)

    monkeypatch.setattr(BilevelTrainer, "train_one_epoch", classmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        run(VC, out=tmp_path, moo={"monitor": {"every": 2}})
    monkeypatch.undo()
    torch.manual_seed(99)
    resumed = run(VC, out=tmp_path, moo={"monitor": {"every": 2}})
    a, b = weights(trained), weights(resumed)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert (trained / "conflict.json").read_text() == (resumed / "conflict.json").read_text()


def test_layers_that_decide_may_be_chosen_late_and_cost_no_passes(run, trained):
    """The set of layers is found in every second step; weights in between are those of the step before."""
    chosen = {"every": 2, "threshold": 0.5, "max_share": 0.25, "delayed": True}
    rows = curves(run(VC, moo={"selection": chosen}))
    assert [row["passes"] for row in rows] == [row["passes"] for row in curves(trained)]
    assert rows[0]["n_deciding"] < curves(trained)[0]["n_deciding"]
    assert all(row["weight_asr_aa"] > 0 for row in rows)


def test_two_stages_train_one_after_the_other(run):
    """Round(0.34 * 3) = 1: heads of recognition stay as they are in the first epoch, that of codes in the others."""
    exp_dir = run(TWO_STAGE, keep_nbest_models=3, optim_conf={"lr": 0.003, "weight_decay": 0.0})
    assert [row["passes"] for row in curves(exp_dir)] == [1, 2, 2]
    first, last = weights(exp_dir, "1epoch.pth"), weights(exp_dir)
    for part, still in (("ssl.", True), ("heads.", False), ("encoder.", False)):
        assert all(torch.equal(first[key], last[key]) for key in last if key.startswith(part)) == still, part


def test_heads_may_learn_faster(model, run):
    args = argparse.Namespace(head_lr_factor=10.0, exclude_weight_decay=False, sharded_ddp=False)
    args = argparse.Namespace(**vars(args), optim="adamw", optim_conf={"lr": 0.001})
    (optimizer,) = MultiObjectiveTask.build_optimizers(args, model)
    assert [group["lr"] for group in optimizer.param_groups] == [0.001, pytest.approx(0.01)]
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    assert len(grouped) == len(list(model.parameters()))


def test_an_objective_is_in_the_level_that_names_it_or_in_the_first_that_fits(model):
    def levels(*confs):
        return [lv.objectives for lv in build_levels(model, {"levels": copy.deepcopy(confs)}, 8).levels]

    assert levels(ALL) == [["asr_aa", "st_aa_xx", "ssl"]]
    named = {"name": "codes", "objectives": ["ssl"]}
    assert levels(ALL, named) == [["asr_aa", "st_aa_xx"], ["ssl"]]
    rest = {"name": "rest", "objectives": ["*"]}
    assert levels({"name": "no", "objectives": ["asr_zz"]}, {"name": "st", "objectives": ["st_*"]}, rest) == [
        ["st_aa_xx"], ["asr_aa", "ssl"],
    ]  # fmt: skip
    with pytest.raises(ValueError, match="each of"):
        levels(named)


def test_a_level_without_objectives_is_named(model, caplog):
    build_levels(model, {"levels": [{"name": "english", "objectives": ["asr_en"]}, ALL]}, 8)
    assert "level english: none of asr_aa, st_aa_xx, ssl is in it; it is left out" in caplog.text


def test_one_option_puts_another_weighting_into_all_levels(model):
    conf = {"levels": copy.deepcopy(VC), "weighting": "cagrad", "weighting_conf": {"c": 0.3}}
    found = [level.weighting for level in build_levels(model, conf, 8).levels]
    assert [type(weighting).__module__ for weighting in found] == ["bilevel.moo.cagrad"] * 2
    assert [weighting.c for weighting in found] == [0.3, 0.3]


def test_another_weighting_brings_its_own_normalisation(model):
    """MGDA on plain gradients would follow the shortest, whatever suits MoDo."""
    levels = [level | {"normalise": "none"} for level in VC]
    for conf, wanted in (({}, "none"), ({"weighting": "mgda"}, "running"), ({"normalise": "norm"}, "norm")):
        found = build_levels(model, {"levels": copy.deepcopy(levels), **conf}, 8).levels
        assert {level.normaliser.by for level in found} == {wanted}


def test_options_of_solvers_are_refused(run):
    with pytest.raises(ValueError, match=r"solver_conf, penalty_conf: .*expected moo_conf alone"):
        run([ALL], penalty_conf={"gamma_max": 2.0})


def test_famo_sees_the_losses_after_the_step(run):
    exp_dir = run([ALL | {"weighting": "famo"}], max_epoch=1)
    state = torch.load(exp_dir / "solver" / "1epoch.pth", weights_only=True)["levels"]["all"]["weighting"]
    assert state["logits"].any()  # they move in `update` alone
    assert not state["waits"]
    assert curves(exp_dir)[-1]["passes"] == 3


@pytest.mark.parametrize("as_micro_batches", [False, True])
def test_famo_stays_where_it_is_while_the_parameters_do(model, batch, corpus, as_micro_batches):
    """The losses after a step are those of all batches of the step, so without a step nothing has changed."""
    other = {name: [corpus.upper(["train-2", "train-5"])] for name in ("asr_aa", "st_aa_xx")}
    other["ssl"] = [corpus.lower(["unlab-0", "unlab-3"])]
    conf = {"levels": [ALL | {"weighting": "famo"}], "batches": 2}
    step = ObjectivesStep(
        argparse.Namespace(moo_conf=conf, max_epoch=1, health=None), model.eval(), torch.enable_grad, False
    )
    parts = [batch, other] if as_micro_batches else [{name: batch[name] + other[name] for name in batch}]
    for i, part in enumerate(parts):
        step.backward(part, argparse.Namespace(epoch=0.0, closes_update=i == len(parts) - 1), lambda loss: loss)
    weighting = step.levels.levels[0].weighting
    step.updated(parts[-1])
    assert weighting.logits.abs().max() < 1e-4
    assert not weighting.waits


def test_head_settings_are_the_tasks_then_the_objectives():
    heads = MOO["heads"] | {"st_aa_xx": {"decoder_conf": {"num_blocks": 2}}}
    assert head_conf(heads, "st_aa_xx")["decoder_conf"] == DECODER | {"num_blocks": 2}
    assert head_conf(heads, "st_aa_yy")["decoder_conf"] == DECODER
    with pytest.raises(ValueError, match="nothing for asr, which objective asr_aa needs"):
        head_conf({"st": {}}, "asr_aa")
    with pytest.raises(ValueError, match="encoder: expected decoder"):
        head_conf({"asr": {"encoder": "conformer"}}, "asr_aa")


def test_batches_follow_hours_as_the_temperature_says(tmp_path):
    streams = {}
    for name, n in (("asr_aa", 30), ("asr_bb", 10), ("st_aa_xx", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shape").write_text(f"u {n}\n")
        streams[name] = {"train": str(tmp_path / name)}
    assert batch_factors(streams, None) == {}
    assert batch_factors(streams, 1.0) == pytest.approx({"asr_aa": 1.5, "asr_bb": 0.5, "st_aa_xx": 1.0})
    warm = batch_factors(streams, 100.0)
    assert warm["asr_aa"] == pytest.approx(warm["asr_bb"], rel=0.02)
