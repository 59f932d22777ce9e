"""The kit accepts a correct solver of an outsider, and names the rule that a broken one breaks."""

import functools
import importlib
import inspect
import sys

import pytest
import torch

from bilevel.optim.solver import BilevelSolver, check_keys, report
from bilevel.testing.check_solver import check_solver, check_two_processes


class Outsider(BilevelSolver):
    """Value-function penalty in a few lines, with a copy z and a little noise from a generator, both in its state."""

    def __init__(self, gamma=1e4):
        self.gamma = gamma
        Outsider.reset(self)

    def backward(self, problem, upper_batch, lower_batch, scale_loss=lambda loss: loss):
        (x,), (y,) = problem.upper_params(), problem.lower_params()
        self.z = y.detach().clone() if self.z is None else self.z
        own, y.data = y.data, self.z
        for _ in range(2):
            d_x, d_z = torch.autograd.grad(problem.lower(lower_batch), (x, y))
            self.z.sub_(0.3 * d_z)
        y.data = own
        f, g = problem.upper(upper_batch), problem.lower(lower_batch)
        scale_loss(f + self.gamma * g).backward()
        x.grad -= scale_loss(torch.ones(())) * (self.gamma * d_x + self.noise())
        return self.report(f.item(), g.item())

    def noise(self):
        return 1e-9 * torch.rand((), generator=self.generator)

    def report(self, f, g):
        return report(upper_loss=f, lower_loss=g, passes=4)

    def state_dict(self):
        return {"z": None if self.z is None else self.z.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        check_keys(self, state, ("z", "generator"))
        self.z = None if state["z"] is None else state["z"].clone()
        self.generator.set_state(state["generator"])

    def reset(self):
        self.z = None
        self.generator = torch.Generator().manual_seed(0)


def test_a_correct_solver_of_an_outsider_passes():
    check_solver(Outsider, tolerance=1e-3, processes=False)
    check_solver(functools.partial(Outsider, gamma=2.0), processes=False)  # far off, but it claims nothing


class After(Outsider):
    """Breaks something after a correct call."""

    def backward(self, problem, *args, **kwargs):
        found = super().backward(problem, *args, **kwargs)
        with torch.no_grad():
            self.spoil(problem)
        return found


class MovesParameters(After):
    """Rule: values of the parameters stay unchanged."""

    def spoil(self, problem):
        problem.y -= 0.1 * problem.y.grad


class WritesNothing(After):
    """Rule: the solver wrote no upper gradient."""

    def spoil(self, problem):
        problem.x.grad = None


class FreezesX(After):
    """Rule: x no longer requires a gradient."""

    def spoil(self, problem):
        problem.x.requires_grad_(False)


class HalvesPrecision(After):
    """Rule: float32 agrees with float64."""

    def spoil(self, problem):
        problem.x.grad *= 1.0 + 0.1 * (problem.x.dtype == torch.float32)


class Overwrites(Outsider):
    """Rule: gradients are added to .grad, not written over it."""

    def backward(self, problem, *args, **kwargs):
        problem.x.grad = problem.y.grad = None
        return super().backward(problem, *args, **kwargs)


class DrawsFromTheGlobalGenerator(Outsider):
    """Rule: torch's global generator is left as it was."""

    def noise(self):
        return torch.rand(())


class TakesTheGlobalSeed(Outsider):
    """Rule: random numbers come from an explicit generator."""

    def noise(self):
        return torch.initial_seed()


class ForgetsItsCopy(Outsider):
    """Rule: a solver continues from its saved state bit by bit."""

    def state_dict(self):
        return super().state_dict() | {"z": None}


class ForgetsItsGenerator(Outsider):
    """Rule: a solver continues from its saved state bit by bit."""

    def load_state_dict(self, state):
        super().load_state_dict(state | {"generator": torch.Generator().manual_seed(0).get_state()})


class SavesItsLiveCopy(Outsider):
    """Rule: a state is a copy."""

    def state_dict(self):
        return super().state_dict() | {"z": self.z}


class LoadsWithoutACopy(Outsider):
    """Rule: a state is a copy."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.z = state["z"]


class ResetsNothing(Outsider):
    """Rule: reset makes a solver as new."""

    def reset(self):
        pass


class LoadsAnything(Outsider):
    """Rule: a state with unknown keys must raise ValueError."""

    def load_state_dict(self, state):
        if "z" in state:
            super().load_state_dict(state)


class WeakPenalty(Outsider):
    """Rule: hypergradient."""

    def __init__(self):
        super().__init__(gamma=1.0)


class IgnoresScale(Outsider):
    """Rule: scale_loss multiplies the gradients."""

    def backward(self, problem, upper_batch, lower_batch, scale_loss=None):
        return super().backward(problem, upper_batch, lower_batch)


class ReportsTheScaledLoss(Outsider):
    """Rule: scale_loss must not change the reported loss."""

    def backward(self, problem, upper_batch, lower_batch, scale_loss=lambda loss: loss):
        found = super().backward(problem, upper_batch, lower_batch, scale_loss)
        return found | {"upper_loss": found["upper_loss"] * float(scale_loss(torch.ones(())))}


class ReportsTooLittle(Outsider):
    """Rule: report: found ['upper_loss'], expected."""

    def report(self, f, g):
        return {"upper_loss": f}


class ReportsTensors(Outsider):
    """Rule: expected plain floats."""

    def report(self, f, g):
        return super().report(f, g) | {"lower_loss": torch.tensor(g)}


class ReportsNoPasses(Outsider):
    """Rule: report: passes 0."""

    def report(self, f, g):
        return report(upper_loss=f, passes=0)


class ReportsNoUpperLoss(Outsider):
    """Rule: upper_loss is nan."""

    def report(self, f, g):
        return report(passes=4)


BROKEN = [
    cls
    for _, cls in inspect.getmembers(sys.modules[__name__], inspect.isclass)
    if issubclass(cls, Outsider) and (cls.__doc__ or "").startswith("Rule: ")
]


def test_there_are_broken_solvers():
    assert len(BROKEN) > 15


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_the_broken_rule_is_named(broken):
    rule = inspect.getdoc(broken).removeprefix("Rule: ").rstrip(".")
    with pytest.raises(AssertionError) as error:
        check_solver(broken, tolerance=1e-3, processes=False)
    assert rule in str(error.value)


def test_a_gradient_that_cannot_see_x_is_told_from_the_direct_one():
    """With A = 0 the hypergradient is the direct gradient; a solver that adds anything there is caught."""

    class Biased(After):
        def spoil(self, problem):
            problem.x.grad += 0.1 * (not problem.a.any())

    with pytest.raises(AssertionError, match="lower level that x cannot move"):
        check_solver(Biased, tolerance=1e-3, processes=False)


SELFISH = """
from bilevel.optim import value_function, vector


class Solver(value_function.Solver):
    def backward(self, *args):
        kept, vector.mean_over_processes = vector.mean_over_processes, lambda xs: xs
        try:
            return super().backward(*args)
        finally:
            vector.mean_over_processes = kept
"""


def test_two_processes_catch_a_copy_that_follows_its_own_half(tmp_path, monkeypatch):
    (tmp_path / "selfish.py").write_text(SELFISH)  # other processes must be able to import it
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match="both states are equal"):
        check_two_processes([importlib.import_module("selfish").Solver])
