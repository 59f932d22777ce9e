"""What every solver brings along: a configuration, a page, and equal results on one and on two processes."""

import functools
import inspect
from pathlib import Path

import pytest
import yaml

from bilevel.optim import build, names
from bilevel.testing.check_solver import check_two_processes

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs/TEMPLATE/bilevel/conf/solver"
PAGES = {"penalty": "bljust", "joint_sum": "single_level", "alternating": "single_level"}

QUICK = {"lagrangian": {"n_iter": 3, "n_primal": 2}}  # each of its steps waits for the other process


@pytest.mark.parametrize("name", names())
def test_its_configuration_lists_all_arguments_with_their_defaults(name):
    path = CONF / f"{name}.yaml"
    assert path.exists(), f"{path}: missing"
    conf = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(conf) == {"solver", "solver_conf"}
    assert conf["solver"] == name
    parameters = inspect.signature(type(build(name))).parameters
    found = conf["solver_conf"] or {}
    assert list(found) == list(parameters)
    for key, parameter in parameters.items():
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        assert found[key] == default, key
        assert type(found[key]) is type(default), f"{key}: {found[key]!r} is no {type(default).__name__} to YAML"
    build(name, found)


@pytest.mark.parametrize("name", names())
def test_its_configuration_says_where_each_value_comes_from(name):
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line.startswith("  ") and ":" in line.split("#")[0]]
    assert all("#" in line for line in values), [line for line in values if "#" not in line]


@pytest.mark.parametrize("name", names())
def test_it_has_a_page(name):
    page = ROOT / f"doc/{PAGES.get(name, name)}.md"
    assert page.exists(), f"{page}: missing"
    assert f"bilevel/optim/{name}.py" in page.read_text(encoding="utf-8")


def test_no_configuration_is_left_without_a_solver():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(names())


def test_two_processes_with_half_a_batch_each_equal_one():
    check_two_processes([functools.partial(build, name, QUICK.get(name)) for name in names()])
