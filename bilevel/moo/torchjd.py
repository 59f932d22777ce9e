"""The weightings of the library torchjd, those that depend on the Gramian alone and remember nothing."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, ObjectiveWeighting, check_keys, check_known


class Weighting(ObjectiveWeighting):
    """`torchjd.aggregation.<method>Weighting`, for comparisons: AlignedMTL, DualProj, FairGrad, Krum and others.

    Needs the optional packages: pip install "bilevel[moo]" (torchjd 0.18; some methods want cvxpy or scipy as well).
    Random methods draw from a generator of this object.

    Args:
        n_objectives: M.
        method: Such as "AlignedMTL".
        seed: For methods that draw random numbers.
        **conf: Arguments of the method.

    Raises:
        ValueError: Unknown method or argument, or a method that needs more than one Gramian or remembers steps; the
            latter could not be resumed.
    """

    convex = False
    random = True

    def __init__(self, n_objectives: int, method: str = "AlignedMTL", seed: int = 0, **conf: Any) -> None:
        super().__init__(n_objectives)
        methods = _methods()
        check_known("method of torchjd", [method], methods)
        check_known(f"argument of torchjd's {method}:", conf, inspect.signature(methods[method]).parameters)
        self.method, self.seed = methods[method](**conf), seed
        Weighting.reset(self)

    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.rng)
            found = self.method(gramian).detach().to("cpu", FLOAT)
            self.rng = torch.get_rng_state()
        return found

    def state_dict(self) -> dict[str, Any]:
        """State of the random numbers."""
        return {"rng": self.rng.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore."""
        check_keys(self, state, ("rng",))
        self.rng = state["rng"].clone()

    def reset(self) -> None:
        """Random numbers start anew."""
        self.rng = torch.Generator().manual_seed(self.seed).get_state()


def _methods() -> dict[str, Any]:
    """Weightings of torchjd that can be used, by the names of their methods."""
    try:
        import torchjd
        from torchjd import aggregation
    except ImportError as error:
        raise ValueError("weighting torchjd: the library is not installed; pip install 'bilevel[moo]'") from error
    found = {}
    for name in aggregation.__all__:
        cls = getattr(aggregation, name)
        # The aggregator of the same name is public only where the weighting needs nothing but the Gramian.
        aggregator = getattr(aggregation, name.removesuffix("Weighting"), None)
        if not name.endswith("Weighting") or name == "Weighting" or issubclass(cls, torchjd.Stateful):
            continue
        if aggregator is not None and issubclass(aggregator, aggregation.GramianWeightedAggregator):
            found[name.removesuffix("Weighting")] = cls
    return found
