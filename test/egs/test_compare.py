"""Comparisons: which trainings run, in which order, what a failure does; one of pre-trainings from audio to report."""

import pytest
from recipe_kit import ROOT, call, result_of, write_configs

from bilevel.testing.trees import kaldi_tree, multi_tree

# Stands for a recipe: notes how it is called, and fails where it is told to.
NOTE = """#!/usr/bin/env bash
echo "$*" >>"$(dirname "$0")/calls"
case "$*" in *"$FAIL"*) exit 3 ;; esac
"""


@pytest.fixture
def note(tmp_path, monkeypatch):
    """A script that stands for a recipe, and what it was called with."""
    monkeypatch.setenv("FAIL", "nothing fails")
    script = tmp_path / "run.sh"
    script.write_text(NOTE)
    script.chmod(0o755)
    return script, lambda: (tmp_path / "calls").read_text().splitlines()


def test_every_method_with_every_seed_and_one_report_at_the_end(note, tmp_path):
    script, calls = note
    options = ["--methods", "a b", "--seeds=1 2", "--jobs", 1, "--src", "x"]
    call("TEMPLATE/asr/compare.sh", script, *options, cwd=tmp_path)
    runs = [(method, seed) for seed in (1, 2) for method in "ab"]
    assert calls() == [
        "--src x --method a --stop_stage 10",
        *(f"--src x --method {method} --seed {seed} --report false --stage 11" for method, seed in runs),
        "--src x --method a --seed 1 --stage 13",
    ]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_training_that_fails_keeps_no_other_from_running_but_ends_the_comparison(note, tmp_path, monkeypatch, jobs):
    script, calls = note
    monkeypatch.setenv("FAIL", "--method a --seed 1")
    options = ["--methods", "a b", "--seeds", "1 2", "--jobs", jobs]
    call("TEMPLATE/asr/compare.sh", script, *options, cwd=tmp_path, code=1)
    assert len(calls()) == 1 + 4  # no report


def test_pretrainings_start_as_they_must(note, tmp_path):
    script, calls = note
    options = ["--trainings", "hubert none cssl ptloc_small infonce", "--seeds", 7, "--start", "cssl", "--jobs", 1]
    call("TEMPLATE/ssl/compare.sh", script, script, *options, "--ssl_config", "c", cwd=tmp_path)
    stages = "--stage 5 --stop_stage 7"
    found = [line.split("--train_args  --seed 7 ")[1] for line in calls() if stages in line]
    start = tmp_path / "exp/cssl_seed7"
    assert found == [
        f"--ssl_tag cssl_seed7 --label cssl --method bestrq {stages}",  # first, whatever the order
        f"--ssl_tag hubert_seed7 --label hubert --method hubert --kmeans_exp {start} {stages}",
        f"--ssl_tag ptloc_small_seed7 --label ptloc_small --method bestrq --ssl_init {start} {stages}",
        f"--ssl_tag infonce_seed7 --label infonce --method infonce {stages}",
    ]
    assert [line for line in calls() if "--ssl_config c ptloc_small " in line]
    recognised = [line for line in calls() if "--stage 11" in line]
    assert recognised[1] == "--seed 7 --asr_tag none_seed7 --method supervised --report false --stage 11"
    assert recognised[2].startswith(f"--pretrained {start} --seed 7 --asr_tag cssl_seed7")


def test_recognition_from_several_pretrainings_and_then_from_one_that_goes_on(tmp_path):
    folder = write_configs(tmp_path / "run")
    pool, own = multi_tree(tmp_path / "pool"), kaldi_tree(tmp_path / "own", n_utterances=4)
    common = f"--recipe {folder}/ssl --nj 1 --allow_partial true"
    for name in ("ssl", "asr"):
        (folder / name).mkdir()
    scripts = [ROOT / f"egs/{name}/run.sh" for name in ("multi/ssl1", "own/asr1")]

    def compare(*options: str) -> str:
        return call(
            "TEMPLATE/ssl/compare.sh", *scripts, *options, "--seeds", "1", "--jobs", "1", "--ssl_exp", "ssl/exp",
            "--ssl_options", f"{common} --src {pool}", "--ssl_config", "train_small tiny codes",
            "--recipe", folder / "asr", "--src", own, "--asr_config", "train_small tiny", "--token_type", "char",
            "--nj", "1", "--allow_partial", "true", cwd=folder, timeout_sec=1800,
        )  # fmt: skip

    compare("--trainings", "none bestrq")
    first = (folder / "ssl/exp/bestrq_seed1/latest.pth").stat().st_mtime_ns
    log = compare("--trainings", "ptloc_small")
    assert (folder / "ssl/exp/bestrq_seed1/latest.pth").stat().st_mtime_ns == first
    start = (folder / "ssl/exp/bestrq_seed1/latest.pth").resolve()  # of the last epoch
    assert f"values from {start}" in log
    exps = {path.parent.name: result_of(path.parent) for path in (folder / "asr/exp").glob("*/result.json")}
    methods = {"none": "supervised", "bestrq": "supervised from bestrq", "ptloc_small": "supervised from ptloc_small"}
    assert {name: result["method"] for name, result in exps.items()} == {f"{n}_seed1": m for n, m in methods.items()}
    assert all(f"|{method}|" in (folder / "asr/exp/RESULTS.md").read_text() for method in methods.values())
