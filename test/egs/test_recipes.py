"""Recipes through their stages: miniature corpora in the published layouts, and real speech."""

import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from recipe_kit import call, result_of, run

from bilevel.data.archive import read_matrix
from bilevel.data.tables import read_scp
from bilevel.testing.aishell_tree import aishell_tree
from bilevel.testing.trees import kaldi_tree, librispeech_tree, tedlium_tree

TINY = """
model_conf: {ctc_weight: 1.0, ssl_conf: {codebook_size: 8, codebook_dim: 4}}
frontend_conf: {n_mels: 20}
specaug_conf: {freq_mask_width_range: [0, 4]}
encoder_conf: {output_size: 16, attention_heads: 2, num_blocks: 1, linear_units: 16, cnn_module_kernel: 3}
decoder: none
max_epoch: 3
num_iters_per_epoch: 2
batch_bins: 100000
num_workers: 0
use_matplotlib: false
use_tensorboard: false
"""


def run_recipe(name: str, recipe: Path, **options: object) -> str:
    recipe.mkdir(exist_ok=True)
    (recipe / "tiny.yaml").write_text(TINY)
    return run(f"{name}/asr1", recipe, **({"asr_config": "train_small tiny"} | options))


def check_result(folder: Path, method: str, corpus: str, sets: list[str]) -> None:
    result = result_of(folder)
    assert (result["method"], result["corpus"], result["seed"]) == (method, corpus, 0)
    assert result["params"] > 0
    assert result["cost"]["updates"] == 6
    assert "audio_hours" in result["cost"]
    assert {(row["set"], row["metric"]) for row in result["results"]} == {(s, m) for s in sets for m in ("wer", "cer")}
    for row in result["results"]:
        assert 0 <= row["low"] <= row["value"] <= row["high"]
        assert row["n_utts"] > 0


MINIATURES = {
    "librispeech": (
        librispeech_tree,
        {"test_sets": "test_clean", "token_type": "char", "method": "bljust"},
        ["dev_clean", "test_clean"],
    ),
    "aishell": (aishell_tree, {"method": "bljust"}, ["dev", "test"]),
    "tedlium": (tedlium_tree, {"nbpe": 28, "method": "weighted_sum"}, ["dev", "test"]),
}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_corpus_goes_through_every_stage_and_then_skips_them(name, tmp_path):
    tree, options, sets = MINIATURES[name]
    options = {"src": tree(tmp_path / "corpus"), "asr_tag": "tiny", "stop_stage": 14} | options
    log = run_recipe(name, tmp_path / "run", **options)
    exp = tmp_path / "run/exp/tiny"
    assert [int(line.split()[2].rstrip(":")) for line in log.splitlines() if line.startswith("== stage")] == [
        1, 3, 4, 5, 10, 11, 12, 13, 14,
    ]  # fmt: skip
    check_result(exp, options["method"], name, sets)
    assert (tmp_path / "run/exp/RESULTS.md").exists()
    assert (tmp_path / "run/exp/report.html").exists()
    assert len(json.loads((exp / "cost.json").read_text())) > 0
    packed = set(zipfile.ZipFile(exp / "packed.zip").namelist())
    assert {"meta.yaml", "config.yaml", "valid.cer_ctc.ave.pth", "result.json", "RESULTS.md"} <= packed
    assert ("bpe.model" in packed) == ("nbpe" in options)
    assert (next(tmp_path.glob("run/exp/asr_stats_*")) / "ctc_too_long.txt").read_text() == ""

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.pth")}
    start_sec = time.perf_counter()
    log = run_recipe(name, tmp_path / "run", **options)
    assert time.perf_counter() - start_sec < 30
    skipped = log.split("== stage")[1:]
    assert all("skip: " in stage for stage in skipped), log
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.pth")}


def test_own_data_with_speed_perturbation_and_filterbanks(tmp_path):
    src = kaldi_tree(tmp_path / "corpus")
    log = run_recipe(
        "own", tmp_path / "run", src=src, speed_perturb_factors="0.9 1.0 1.1", feats_type="fbank", token_type="char",
        method="supervised", asr_tag="tiny",
    )  # fmt: skip
    assert "== stage 2: speed perturbation" in log
    check_result(tmp_path / "run/exp/tiny", "supervised", "kaldi", ["dev", "test"])
    dump = tmp_path / "run/dump/fbank"
    entries, n_frames = read_scp(dump / "train_lab_sp/feats.scp"), read_scp(dump / "train_lab_sp/utt2num_frames")
    assert len(entries) == 3 * len(read_scp(dump / "train_unlab/feats.scp"))
    for key in read_scp(dump / "train_unlab/feats.scp"):
        slow, plain, fast = (int(n_frames[f"{prefix}{key}"]) for prefix in ("sp0.9-", "", "sp1.1-"))
        assert slow / plain == pytest.approx(1 / 0.9, rel=0.02)
        assert fast / plain == pytest.approx(1 / 1.1, rel=0.02)
        features = read_matrix(entries[key])
        assert features.shape == (plain, 80)
        assert np.isfinite(features).all()


def test_real_speech_is_formatted_as_one_s_own_data(shared, tmp_path):
    log = run_recipe("own", tmp_path / "run", src=shared / "data/real/yesno", stop_stage=5, nbpe=9)
    assert "== stage 5" in log
    dump = tmp_path / "run/dump/raw"
    assert {name: len(read_scp(dump / name / "text")) for name in ("train_lab", "dev", "test")} == {
        "train_lab": 40, "dev": 7, "test": 3,
    }  # fmt: skip
    assert (dump / "org/train_lab/quarantine.tsv").read_text() == ""


def test_a_failing_stage_ends_the_recipe_with_one_clear_line(tmp_path):
    options = ["--recipe", tmp_path, "--src", tmp_path, "--asr_config", "train_small"]
    log = call("own/asr1/run.sh", *options, cwd=tmp_path, code=1)
    assert "no split" in log
    assert "Traceback" not in log
    assert "== stage 3" not in log
