import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def runs(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("ddp")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
    command = [sys.executable, str(Path(__file__).with_name("ddp_worker.py")), str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = ("0of1", "0of2", "1of2")
    files = {
        name: folder / f"{name}.pth"
        for name in (*ranks, *(f"{kind}_{rank}" for kind in ("ssl", "moo") for rank in ranks))
    }
    files |= {name: folder / name / "checkpoint.pth" for name in ("main_of1", "main_of2")}
    return {name: torch.load(file, weights_only=True) for name, file in files.items()}


@pytest.mark.parametrize("kind", ["", "ssl_", "moo_"])
def test_both_processes_hold_the_same_parameters(runs, kind):
    for name, value in runs[f"{kind}0of2"]["model"].items():
        assert torch.equal(value, runs[f"{kind}1of2"]["model"][name]), name


@pytest.mark.parametrize(("kind", "n_steps"), [("", 6), ("ssl_", 3), ("moo_", 3)])
def test_two_processes_follow_the_same_gradients_as_one(runs, kind, n_steps):
    one_by_one, shared = runs[f"{kind}0of1"]["grads"], runs[f"{kind}0of2"]["grads"]
    assert len(one_by_one) == n_steps
    for one, two in zip(one_by_one, shared, strict=True):
        for name, grad in one.items():
            if grad is None:
                assert two[name] is None or not two[name].any(), name
            else:
                torch.testing.assert_close(two[name], grad, rtol=1e-6, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ["", "ssl_", "moo_"])
def test_two_processes_end_where_one_ends(runs, kind):
    for name, value in runs[f"{kind}0of1"]["model"].items():
        torch.testing.assert_close(runs[f"{kind}0of2"]["model"][name], value, rtol=1e-6, atol=1e-9)
    assert any(g is not None and g.any() for g in runs[f"{kind}0of1"]["grads"][-1].values())


@pytest.mark.parametrize("kind", ["", "ssl_", "moo_"])
def test_reported_means_are_those_of_the_global_batch(runs, kind):
    assert runs[f"{kind}0of2"]["stats"] == pytest.approx(runs[f"{kind}0of1"]["stats"], rel=1e-6)


def test_moments_of_local_steps_are_those_of_the_global_batch(runs):
    one, two = (runs[name]["solver"]["moments"] for name in ("ssl_0of1", "ssl_0of2"))
    assert [m["n_steps"] for m in one] == [m["n_steps"] for m in two] == [6, 6]
    for expected, found in zip(one, two, strict=True):
        for part in ("first", "second"):
            assert any(value.any() for value in expected[part])
            for a, b in zip(expected[part], found[part], strict=True):
                torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-12)


def test_a_whole_training_is_the_same_in_two_processes(runs):
    one, two = runs["main_of1"], runs["main_of2"]
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-6, atol=1e-9)
    for epoch, stats in one["reporter"]["stats"].items():
        for split, names in (("train", ("loss", "ssl_loss", "gamma", "passes", "n_input")), ("valid", ("loss",))):
            found = {name: float(two["reporter"]["stats"][epoch][split][name]) for name in names}
            expected = {name: float(stats[split][name]) for name in names}
            assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), (epoch, split)
