"""The contract of every weighting of objectives, and how they are found: drop a module with a class `Weighting`."""

import difflib
import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

FLOAT = torch.float64  # an M x M problem costs nothing in double precision, and conflicts are differences


class ObjectiveWeighting(ABC):
    r"""Says how much each objective counts in a step: `lam` in `d = sum_m lam_m g_m`.

    With J of shape (M, P) the gradients g_m of M objectives by the shared parameters, a weighting sees their Gramian
    G = J J^T (or G = J_1 J_2^T of two independent batches) and their losses, never the model. Scale: where no
    objectives conflict, the weights sum to one, so that changing the weighting does not change the step size.

    An objective may be absent from a step (a batch without that language). Then the call takes those that are present;
    what is remembered of the others stays as it was.

    Attributes:
        n_batches: 2 when it takes J_1 J_2^T of two independent batches.
        needs: "nothing", "losses", "gramian" or "rows". "losses": `update` must follow each step, with the losses of
            the same batches after it. "rows": `track` replaces the gradients, and the direction is made of what it
            returns.
        scale_sensitive: Prefers objectives with small gradients, or its own step size has the unit of the Gramian; so
            normalise the gradients first (`normalise.Normaliser`).
        convex: Weights are >= 0 and sum to one.
        non_conflicting: No gradient g_m has a negative product with the direction, apart from rounding.
        random: Draws from a generator of its own.
    """

    n_batches: int = 1
    needs: str = "gramian"
    scale_sensitive: bool = False
    convex: bool = True
    non_conflicting: bool = False
    random: bool = False

    def __init__(self, n_objectives: int) -> None:
        if n_objectives < 1:
            raise ValueError(f"n_objectives {n_objectives}: expected at least 1")
        self.n_objectives = n_objectives

    @final
    def weights(
        self, gramian: Tensor, losses: Tensor | Sequence[float] | None = None, present: Sequence[int] | None = None
    ) -> Tensor:
        """Weights of the objectives that are present, and a step of what is remembered.

        Args:
            gramian: (m, m), products of the gradients of the objectives that are present.
            losses: (m,), their losses; may be missing unless `needs` is "losses".
            present: Their m indices in rising order; all objectives when None.

        Returns:
            (m,) float64 on the CPU.

        Raises:
            ValueError: Shapes or indices do not fit, or a number is not finite.
        """
        index = torch.arange(self.n_objectives) if present is None else torch.as_tensor(list(present), dtype=torch.long)
        m = len(index)
        found = index.tolist()
        if found != sorted(set(found)) or (m and not 0 <= found[0] <= found[-1] < self.n_objectives):
            raise ValueError(f"present {found}: expected rising indices of {self.n_objectives} objectives")
        gramian = gramian.detach().to("cpu", FLOAT)
        if gramian.shape != (m, m):
            raise ValueError(f"Gramian of shape {tuple(gramian.shape)}: expected {(m, m)}, one row for each objective")
        losses = checked_losses(losses, m, required=self.needs == "losses")
        if not gramian.isfinite().all():
            bad = [found[i] for i in range(m) if not gramian[i].isfinite().all()]
            raise ValueError(f"Gramian: products of objectives {bad} are not finite; leave the step out")
        return self._weights(gramian, losses, index) if m else torch.zeros(0, dtype=FLOAT)

    @abstractmethod
    def _weights(self, gramian: Tensor, losses: Tensor, present: Tensor) -> Tensor:
        """Weights (m,) from a Gramian (m, m), losses (m,) and indices (m,), m >= 1; all float64, arguments stay."""

    def track(self, rows: Mapping[int, list[Tensor | None]]) -> dict[int, list[Tensor | None]]:
        """Gradients to use instead of those found: objective -> one tensor for each parameter, None for zeros."""
        return dict(rows)

    def update(self, losses: Tensor | Sequence[float], present: Sequence[int] | None = None) -> None:  # noqa: B027
        """Take in the losses (m,) of the same batches after the step; for those that need "losses"."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as plain types and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: Keys are missing or unknown.
        """
        check_keys(self, state, ())

    def reset(self) -> None:  # noqa: B027  (nothing to forget is a valid answer)
        """Forget all state, as if newly built."""


def checked_losses(losses: Tensor | Sequence[float] | None, m: int, required: bool = True) -> Tensor:
    """Losses as (m,) float64 on the CPU; nan where there are none.

    Raises:
        ValueError: They are missing, or of another number.
    """
    if losses is None and required:
        raise ValueError("no losses: this weighting needs the losses of all objectives that are present")
    found = torch.full((m,), torch.nan) if losses is None else torch.as_tensor(losses).detach()
    if found.shape != (m,):
        raise ValueError(f"losses of shape {tuple(found.shape)}: expected {(m,)}, one for each objective")
    return found.to("cpu", FLOAT)


def check_keys(owner: Any, state: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse a state of another kind.

    Raises:
        ValueError: Keys are missing or unknown.
    """
    if set(state) != set(expected):
        raise ValueError(
            f"state of {type(owner).__module__}: found keys {sorted(state)}, expected {sorted(expected)}; "
            "it belongs to other objectives, another weighting or another version"
        )


def check_known(what: str, found: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not in a list, and say which one is nearest.

    Raises:
        ValueError: A name is unknown.
    """
    known = list(known)
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            hint = f"the nearest one is {near[0]!r}, all: {', '.join(known)}" if near else "expected none"
            raise ValueError(f"unknown {what} {name!r}; {hint}")


def names() -> list[str]:
    """Names of all weightings in `bilevel.moo`, sorted."""
    package = importlib.import_module(__package__)
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return sorted(n for n in found if hasattr(importlib.import_module(f"{__package__}.{n}"), "Weighting"))


def build(name: str, n_objectives: int, conf: Mapping[str, Any] | None = None) -> ObjectiveWeighting:
    """A weighting by the name of its module, with its constructor's arguments.

    Raises:
        ValueError: Unknown weighting or argument; the message has the nearest one and lists all.
    """
    check_known("weighting", [name], names())
    cls = importlib.import_module(f"{__package__}.{name}").Weighting
    parameters = inspect.signature(cls).parameters
    if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        check_known(f"argument of weighting {name}:", conf or {}, [key for key in parameters if key != "n_objectives"])
    return cls(n_objectives, **(conf or {}))
