"""The kit accepts a correct weighting of an outsider, and names the rule that a broken one breaks."""

import inspect
import sys

import pytest
import torch

from bilevel.moo.weighting import ObjectiveWeighting, check_keys
from bilevel.testing.check_weighting import check_weighting


class Outsider(ObjectiveWeighting):
    """Softmax of a moving mean of log lengths, with a little noise from a generator, both in its state."""

    random = True

    def __init__(self, n_objectives):
        super().__init__(n_objectives)
        Outsider.reset(self)

    def _weights(self, gramian, losses, present):
        self.logs[present] = 0.5 * self.logs[present] + 0.5 * gramian.diagonal().clamp(min=1e-30).log()
        return torch.softmax(-self.logs[present] + self.noise(len(present)), 0)

    def noise(self, m):
        return 1e-3 * torch.rand(m, generator=self.generator, dtype=torch.float64)

    def state_dict(self):
        return {"logs": self.logs.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        check_keys(self, state, ("logs", "generator"))
        self.logs = state["logs"].clone()
        self.generator.set_state(state["generator"])

    def reset(self):
        self.logs = torch.zeros(self.n_objectives, dtype=torch.float64)
        self.generator = torch.Generator().manual_seed(0)


def test_a_correct_weighting_of_an_outsider_passes():
    check_weighting(Outsider)


class ReturnsTooMany(Outsider):
    """Rule: shape."""

    def _weights(self, gramian, losses, present):
        return super()._weights(gramian, losses, present).repeat(2)


class ReturnsSingles(Outsider):
    """Rule: type."""

    def _weights(self, gramian, losses, present):
        return super()._weights(gramian, losses, present).float()


class DividesByZero(Outsider):
    """Rule: weights are finite."""

    def _weights(self, gramian, losses, present):
        return 1 / gramian.diagonal() / (1 / gramian.diagonal()).sum()


class DoesNotSumToOne(Outsider):
    """Rule: weights are on the simplex."""

    def _weights(self, gramian, losses, present):
        return 2 * super()._weights(gramian, losses, present)


class Promises(Outsider):
    """Rule: no objective rises."""

    non_conflicting = True


class DrawsFromTheGlobalGenerator(Outsider):
    """Rule: torch's global generator is left as it was."""

    def noise(self, m):
        return torch.rand(m, dtype=torch.float64)


class TakesTheGlobalSeed(Outsider):
    """Rule: random numbers come from an explicit generator."""

    def noise(self, m):
        return torch.arange(m) * (torch.initial_seed() % 7)


class WritesToItsArguments(Outsider):
    """Rule: arguments stay unchanged."""

    def _weights(self, gramian, losses, present):
        found = super()._weights(gramian, losses, present)
        gramian.mul_(2)
        return found


class PrefersTheFirst(Outsider):
    """Rule: permuted objectives get permuted weights."""

    random = False

    def noise(self, m):
        return torch.zeros(m, dtype=torch.float64)

    def _weights(self, gramian, losses, present):
        shifted = gramian + torch.diag(gramian[0].abs() * (torch.arange(len(present)) > 0))
        equal = bool((gramian == gramian[0, 0]).all())
        return super()._weights(gramian if equal else shifted, losses, present)


class CountsAbsentOnes(Outsider):
    """Rule: absent objectives: weights on the simplex."""

    def _weights(self, gramian, losses, present):
        return super()._weights(gramian, losses, present) * (len(present) / self.n_objectives)


class ForgetsItsState(Outsider):
    """Rule: continues from its saved state bit by bit."""

    def state_dict(self):
        return super().state_dict() | {"logs": torch.zeros(self.n_objectives, dtype=torch.float64)}


class SavesItsLiveState(Outsider):
    """Rule: a state is a copy."""

    def state_dict(self):
        return super().state_dict() | {"logs": self.logs}


class LoadsWithoutACopy(Outsider):
    """Rule: a state is a copy."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.logs = state["logs"]


class ResetsNothing(Outsider):
    """Rule: reset makes a weighting as new."""

    def reset(self):
        pass


class LoadsAnything(Outsider):
    """Rule: a state with unknown keys must raise ValueError."""

    def load_state_dict(self, state):
        if "logs" in state:
            super().load_state_dict(state)


BROKEN = [
    cls
    for _, cls in inspect.getmembers(sys.modules[__name__], inspect.isclass)
    if issubclass(cls, Outsider) and (cls.__doc__ or "").startswith("Rule: ")
]


def test_there_are_broken_weightings():
    assert len(BROKEN) > 12


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_the_broken_rule_is_named(broken):
    rule = inspect.getdoc(broken).removeprefix("Rule: ").rstrip(".")
    with pytest.raises(AssertionError) as error:
        check_weighting(broken)
    assert rule in str(error.value)
