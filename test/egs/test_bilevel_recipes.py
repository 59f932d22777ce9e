"""Recipes of problems outside speech recognition: small cases through both stages."""

import json
import random
from pathlib import Path

import pytest
import yaml
from recipe_kit import ROOT, call, result_of


def run_recipe(name: str, expdir: Path, *options: str) -> str:
    return call(f"{name}/bilevel1/run.sh", "--expdir", expdir, *options, cwd=expdir.parent)


def read(folder: Path) -> dict:
    result = result_of(folder)
    steps = [json.loads(line)["step"] for line in (folder / "trace.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[-1] == result["cost"]["updates"]
    return result


def test_one_network_and_one_gamma_are_enough_to_get_a_result(tmp_path):
    run_recipe("transport", tmp_path / "exp", "--network", "three_node", "--gamma", "4", "--set", "n_steps=20")
    [folder] = [path for path in (tmp_path / "exp").iterdir() if path.is_dir()]
    assert folder.name == "blocc_three_node_4_n_steps=20_seed0"
    result = read(folder)
    assert result["corpus"] == "transport_three_node"
    names = {"utility_yF", "utility_yg", "violation_yF", "violation_yg"}
    assert {row["metric"] for row in result["results"]} == names
    assert {row["set"] for row in result["results"]} == {"gamma 4"}
    assert "<svg" in (folder / "network.svg").read_text()
    assert "## transport_three_node" in (tmp_path / "exp/RESULTS.md").read_text()


def test_every_method_and_seed_of_a_machine_is_solved_and_reported(tmp_path):
    rng = random.Random(0)
    rows = []
    for _ in range(60):
        point = [rng.gauss(0, 1), rng.gauss(0, 1)]
        rows.append(f"{1 if point[0] + 0.5 * point[1] > 0 else -1:+d} 1:{point[0]:.4f} 2:{point[1]:.4f}\n")
    (tmp_path / "fourclass.libsvm").write_text("".join(rows))
    options = ["--src", str(tmp_path), "--dataset", "fourclass", "--methods", "blocc random", "--seeds", "0 1"]
    small = ["problem_conf.n_train=30", "problem_conf.n_valid=15", "n_steps=4"]
    run_recipe("svm", tmp_path / "exp", *options, *(word for s in small for word in ("--set", s)))
    results = [read(path) for path in sorted((tmp_path / "exp").iterdir()) if path.is_dir()]
    assert [(r["method"], r["seed"]) for r in results] == [("blocc", 0), ("blocc", 1), ("random", 0), ("random", 1)]
    for result in results:
        values = {row["metric"]: row["value"] for row in result["results"]}
        assert values.keys() >= {"accuracy_yF", "val_loss_yF", "violation_yF"}
        assert 0 <= values["accuracy_yF"] <= 1
    assert "Accuracy y_F" in (tmp_path / "exp/RESULTS.md").read_text()


@pytest.mark.parametrize("name", ["svm", "transport"])
def test_help_lists_the_options_of_the_recipe_and_of_the_problem(name, tmp_path):
    script = f"{name}/bilevel1/run.sh"
    log = call(script, "--help", cwd=tmp_path)
    for option in ("--methods", "--seeds", "--stop_stage", "--exp_dir", "--set"):
        assert option in log
    assert "expected --option value" in call(script, "three_node", cwd=tmp_path, code=2)


def test_configurations_are_mappings_with_known_methods():
    for file in sorted(ROOT.glob("egs/*/bilevel1/conf/*.yaml")):
        assert isinstance(yaml.safe_load(file.read_text()), dict), file
