"""What a bilevel problem is, for every solver."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter


class Problem(Protocol):
    """Two losses over (partly) the same parameters.

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
        """Parameters that f depends on."""
        ...

    def lower_params(self) -> Sequence[Parameter]:
        """Parameters that g depends on; those also in `upper_params` are the shared backbone."""
        ...
