import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bilevel.optim
from bilevel.optim.solver import REPORT, build, check_keys, clones, names, report

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_with_a_solver_is_found():
    modules = {path.stem for path in (ROOT / "bilevel/optim").glob("*.py") if "\nclass Solver(" in path.read_text()}
    assert names() == sorted(modules)
    assert {"penalty", "lagrangian", "value_function", "local", "zeroth_order"} <= set(names())
    assert {"schedule", "vector", "problem", "solver"}.isdisjoint(names())


@pytest.mark.parametrize("name", names())
def test_each_is_built_by_its_name(name):
    solver = build(name)
    assert type(solver).__module__ == f"bilevel.optim.{name}"
    assert isinstance(solver, bilevel.optim.BilevelSolver)


def test_arguments_reach_the_constructor():
    assert build("penalty", {"gamma": 3.0}).gamma == 3.0


@pytest.mark.parametrize(("typo", "meant"), [("penalti", "penalty"), ("value-function", "value_function")])
def test_a_misspelt_name_gets_the_nearest_and_all_choices(typo, meant):
    with pytest.raises(ValueError, match=f"the nearest one is '{meant}'") as error:
        build(typo)
    assert all(name in str(error.value) for name in names())


@pytest.mark.parametrize("name", ["schedule", "problem", "os", "", None])
def test_what_is_no_solver_is_refused(name):
    with pytest.raises(ValueError, match="unknown solver"):
        build(name)


def test_an_unknown_argument_gets_all_choices():
    with pytest.raises(ValueError, match="solver penalty: unknown argument gama; expected some of gamma, scale"):
        build("penalty", {"gama": 1.0})


def test_a_report_has_all_keys_and_no_other():
    found = report(upper_loss=torch.tensor(2.0, dtype=torch.float64), passes=3)
    assert tuple(found) == REPORT
    assert found["upper_loss"] == 2.0
    assert found["passes"] == 3.0
    assert all(type(v) is float for v in found.values())
    assert math.isnan(found["gap"])
    with pytest.raises(ValueError, match=r"\['uper_loss'\]: expected only upper_loss"):
        report(uper_loss=1.0)


def test_a_state_with_other_keys_is_refused():
    with pytest.raises(ValueError, match=r"found keys \['z'\], expected \['y'\]"):
        check_keys(object(), {"z": 0}, ("y",))


def test_clones_share_nothing():
    x = torch.zeros(2)
    (copy,) = clones([x])
    x += 1
    assert not copy.any()
    assert clones(None) is None


def test_the_package_needs_torch_alone():
    """With every solver built, only torch's own imports and the standard library are loaded."""
    code = """
import sys, torch
before = set(sys.modules)
import bilevel.optim
solvers = [bilevel.optim.build(name) for name in bilevel.optim.names()]
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
assert len(solvers) > 5 and new <= {"bilevel", "torch"}, new
heavy = {"espnet2", "torchaudio", "soundfile", "scipy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
