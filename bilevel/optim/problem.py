"""What a bilevel problem is, for every solver."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter


class Problem(Protocol):
    """Two losses f(x, y) and g(x, y) over an upper variable x and a lower variable y.

        min_x f(x, y*(x))   subject to   y*(x) in argmin_y g(x, y)

    The upper level is what one wants in the end (supervised), the lower level is the constraint (self-supervised).
    Both return a scalar mean over their own batch; data loading, devices and logging never enter here.
    """

    def upper(self, batch: Any) -> Tensor:
        """Scalar upper-level loss f on one batch."""
        ...

    def lower(self, batch: Any) -> Tensor:
        """Scalar lower-level loss g on one batch."""
        ...

    def upper_params(self) -> Sequence[Parameter]:
        """The upper variable x. With a shared backbone: all parameters that f depends on."""
        ...

    def lower_params(self) -> Sequence[Parameter]:
        """The lower variable y. Those also in `upper_params` are a shared backbone (`Solver.shares_variables`)."""
        ...


class ConstrainedProblem(Problem, Protocol):
    """A problem whose lower level is also bound to a set Y and to constraints that couple it with x.

    y*(x) in argmin_{y in Y} g(x, y)   subject to   c(x, y) <= 0,  e(x, y) = 0
    """

    def constraints(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Values c: (m,) of the inequalities and e: (p,) of the equations; an empty tensor where there are none."""
        ...

    def project_lower(self) -> None:
        """Move the lower parameters, in place, to the nearest point of Y."""
        ...
