"""Algebra on lists of tensors, the vectors of a bilevel problem."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def dot(xs: Iterable[Tensor], ys: Iterable[Tensor]) -> Tensor:
    """Inner product `sum_i <x_i, y_i>` as a scalar tensor."""
    return torch.stack([(x * y).sum() for x, y in zip(xs, ys, strict=True)]).sum()


def norm(xs: Iterable[Tensor | None]) -> Tensor:
    """Euclidean norm of the concatenation; None counts as zero."""
    norms = [torch.linalg.vector_norm(x) for x in xs if x is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def axpy(alpha: float, xs: Iterable[Tensor], ys: Iterable[Tensor]) -> list[Tensor]:
    """`alpha * x + y`, new tensors."""
    return [torch.add(y, x, alpha=alpha) for x, y in zip(xs, ys, strict=True)]


def gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Copies of `.grad`, zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in params]


def flatten(xs: Sequence[Tensor]) -> Tensor:
    """One long vector of all entries."""
    return torch.cat([x.reshape(-1) for x in xs])
