"""Pre-training recipes through their stages, on miniature corpora in the published layouts."""

import json
from pathlib import Path

import pytest
import recipe_kit
import torch

from bilevel.data.tables import read_scp
from bilevel.testing.ami_tree import ami_tree
from bilevel.testing.trees import kaldi_tree, multi_tree
from bilevel.testing.yodas_tree import yodas_tree


def run(kind: str, name: str, recipe: Path, **options: object) -> str:
    config = {"asr": "train_small tiny", "ssl": "train_small tiny codes"}[kind]
    return recipe_kit.run(f"{name}/{kind}1", recipe_kit.write_configs(recipe), **({f"{kind}_config": config} | options))


def weights(file: Path, part: str = "") -> dict[str, torch.Tensor]:
    stored = torch.load(file, map_location="cpu", weights_only=True)
    return {key: value for key, value in stored.items() if key.startswith(part) and key != "global_step"}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pre-training on two sources, and the folder of its recipe."""
    folder = tmp_path_factory.mktemp("multi")
    src = multi_tree(folder)
    log = run("ssl", "multi", folder / "recipe", src=src, method="birq", ssl_tag="birq", stop_stage=9)
    return folder / "recipe", src, log


def test_two_sources_from_audio_to_a_packed_encoder(pool):
    recipe, _, log = pool
    assert "sources: books, meetings" in log
    assert {"birq/packed.zip", "birq/latest.pth"} <= {f"birq/{p.name}" for p in (recipe / "exp/birq").iterdir()}
    rows = [json.loads(line) for line in (recipe / "exp/birq/train.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[-1]["passes"] == 3  # for each source one and a half: labels come from the first of two blocks
    assert rows[-1].keys() >= {"train_lower_loss", "ssl_label_perplexity", "ssl_enhanced_perplexity", "ssl_agreement"}
    cost = json.loads((recipe / "exp/birq/cost.json").read_text())
    assert (cost["updates"], cost["passes"]) == (4, 12)


def test_a_second_call_does_nothing_again(pool):
    recipe, src, _ = pool
    before = (recipe / "exp/birq/latest.pth").stat().st_mtime_ns
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="birq", stop_stage=9)
    assert log.count("skip: ") >= 6
    assert (recipe / "exp/birq/latest.pth").stat().st_mtime_ns == before


def test_local_steps_start_from_the_pretraining_head_included(pool):
    recipe, src, _ = pool
    (recipe / "steps.yaml").write_text("solver_conf: {n_inner: 1, lr: 0.001}\n")
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="ptloc", stage=6,
              ssl_config="train_small tiny codes steps", ssl_init=recipe / "exp/birq")  # fmt: skip
    assert "pretrained: ssl: " in log
    assert "pretrained: not taken: global_step" in log
    assert json.loads((recipe / "exp/ptloc/cost.json").read_text())["passes"] == 24


def test_rounds_start_from_one_another_and_the_last_is_packed(pool):
    """At an outer rate of 0 a round of local steps ends where it starts: with all weights of the round before."""
    recipe, src, _ = pool
    (recipe / "still.yaml").write_text("solver_conf: {n_inner: 1, lr: 0.001}\noptim_conf: {lr: 0.0, weight_decay: 0}\n")
    options = {"src": src, "method": "birq", "ssl_tag": "cycle", "rounds": "cssl still", "stage": 6}
    run("ssl", "multi", recipe, **options)
    first, second = (recipe / f"exp/cycle_round{name}" for name in ("1_cssl", "2_still"))
    assert json.loads((second / "run.json").read_text())["method"] == "birq: cssl still"
    assert [json.loads((exp / "cost.json").read_text())["passes"] for exp in (first, second)] == [12, 24]
    before, after = weights(first / "latest.pth"), weights(second / "latest.pth")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    log = run("ssl", "multi", recipe, **(options | {"stop_stage": 9}))
    assert log.count("skip: ") == 3  # statistics and two rounds
    assert f"--pretrained {second} --freeze_encoder true" in log
    assert [(exp / "packed.zip").exists() for exp in (first, second)] == [False, True]


def test_a_frozen_encoder_stays_what_it_was_and_the_head_learns(pool, tmp_path):
    recipe, _, _ = pool
    own = kaldi_tree(tmp_path, n_utterances=4)
    asr = tmp_path / "asr"
    run("asr", "own", asr, src=own, method="supervised", token_type="char", pretrained=recipe / "exp/birq",
        freeze_encoder="true", stop_stage=11)  # fmt: skip
    [exp] = (path for path in (asr / "exp").iterdir() if path.name.startswith("asr_supervised"))
    assert exp.name.endswith("_from_birq_frozen_seed0")
    frozen = weights(exp / "latest.pth", "encoder.")
    given = weights(recipe / "exp/birq/latest.pth", "encoder.")
    assert frozen.keys() == given.keys()
    assert all(torch.equal(value, given[key]) for key, value in frozen.items())
    heads = [weights(exp / f"{epoch}epoch.pth", "ctc.") for epoch in (1, 2)]
    assert all(not torch.equal(value, heads[1][key]) for key, value in heads[0].items())


def test_relabelling_recognition_and_probe(pool, tmp_path):
    recipe, src, _ = pool
    log = run("ssl", "multi", recipe, src=src, method="hubert", ssl_tag="hubert", stage=5, n_clusters=6,
              kmeans_exp=recipe / "exp/birq")  # fmt: skip
    targets = recipe / "exp/kmeans6_birq_train_10h_seed0"
    assert set(read_scp(targets / "train")) == set(read_scp(recipe / "dump/raw/train/wav.scp"))
    assert json.loads((targets / "kmeans.json").read_text())["layer"] == 1  # 70 % of two blocks
    own = kaldi_tree(tmp_path, n_utterances=4)
    asr = tmp_path / "asr"
    log = run("asr", "own", asr, src=own, method="supervised", token_type="char", asr_tag="asr", max_sec=20,
              pretrained=recipe / "exp/hubert")  # fmt: skip
    assert "pretrained: encoder: " in log
    assert (asr / "exp/asr/result.json").exists()
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="birq", stage=8, stop_stage=8,
              align_exp=asr / "exp/asr", probe_dir=asr / "dump/raw/test")  # fmt: skip
    found = json.loads((recipe / "exp/birq/probe.json").read_text())["labels"]
    assert set(found) == {"anchor", "enhanced"}
    assert all(0 <= row["pnmi"] <= 1 and row["unit_purity"] > 0 for row in found.values())
    assert "| anchor | " in log


def test_hubert_without_clusters_and_an_encoder_that_does_not_fit_are_refused(pool, tmp_path):
    recipe, src, _ = pool
    with pytest.raises(AssertionError, match="name its experiment with --kmeans_exp"):
        run("ssl", "multi", recipe, src=src, method="hubert")
    own = kaldi_tree(tmp_path, n_utterances=4)
    with pytest.raises(AssertionError, match="expected at least 90%"):
        run("asr", "own", tmp_path / "asr", src=own, method="supervised", token_type="char",
            pretrained=recipe / "exp/birq", train_args="encoder_conf.output_size=24")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tree", "sets"),
    [
        ("ami", ami_tree, {"train_set": "ihm_train", "valid_set": "ihm_dev"}),
        ("yodas", yodas_tree, {}),
    ],
)
def test_published_layouts_through_every_stage(name, tree, sets, tmp_path):
    log = run("ssl", name, tmp_path / "recipe", src=tree(tmp_path), method="bestrq", ssl_tag="x", stop_stage=9, **sets)
    assert "unpacked, it encodes" in log
    assert json.loads((tmp_path / "recipe/exp/x/cost.json").read_text())["updates"] == 4
