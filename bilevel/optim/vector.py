"""Algebra on lists of tensors, the vectors of a bilevel problem; and gradients as such vectors."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter


def dot(xs: Iterable[Tensor], ys: Iterable[Tensor]) -> Tensor:
    """Inner product `sum_i <x_i, y_i>` as a scalar tensor."""
    return torch.stack([(x * y).sum() for x, y in zip(xs, ys, strict=True)]).sum()


def norm(xs: Iterable[Tensor | None]) -> Tensor:
    """Euclidean norm of the concatenation; None counts as zero."""
    norms = [torch.linalg.vector_norm(x) for x in xs if x is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def axpy(alpha: float | Tensor, xs: Iterable[Tensor], ys: Iterable[Tensor]) -> list[Tensor]:
    """`alpha * x + y`, new tensors."""
    return [alpha * x + y for x, y in zip(xs, ys, strict=True)]


def gradients(params: Iterable[Tensor]) -> list[Tensor]:
    """Copies of `.grad`, zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in params]


def flatten(xs: Sequence[Tensor]) -> Tensor:
    """One long vector of all entries."""
    return torch.cat([x.reshape(-1) for x in xs])


def copies(params: Iterable[Tensor]) -> list[Tensor]:
    """Detached copies of the values."""
    return [p.detach().clone() for p in params]


@contextmanager
def at(params: Sequence[Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the parameters hold `values` (no copy: in-place changes reach them); afterwards their own again.

    Backward passes belong inside, too.
    """
    own = [p.data for p in params]
    for p, value in zip(params, values, strict=True):
        p.data = value
    try:
        yield
    finally:
        for p, value in zip(params, own, strict=True):
            p.data = value


def grad(loss: Tensor, params: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Gradient of a loss, averaged over processes; zeros where the loss does not depend on a parameter.

    Leaves `.grad` alone. With `create_graph` the gradient is that of this process and can be differentiated again;
    average the result of the second differentiation with `mean_over_processes`.
    """
    found: Sequence[Tensor | None] = [None] * len(params)
    wanted = [i for i, p in enumerate(params) if p.requires_grad]
    if loss.requires_grad and wanted:
        some = torch.autograd.grad(loss, [params[i] for i in wanted], create_graph=create_graph, allow_unused=True)
        at_index = dict(zip(wanted, some, strict=True))
        found = [at_index.get(i) for i in range(len(params))]
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]
    return filled if create_graph else mean_over_processes(filled)


def mean_over_processes(xs: list[Tensor]) -> list[Tensor]:
    """Mean over the processes of torch.distributed; the same list where there is one process."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1 or not xs:
        return xs
    long = flatten([x.detach() for x in xs])
    torch.distributed.all_reduce(long)
    parts = (long / torch.distributed.get_world_size()).split([x.numel() for x in xs])
    return [part.view_as(x) for part, x in zip(parts, xs, strict=True)]


def add_to_grad(params: Sequence[Parameter], xs: Sequence[Tensor], factor: float | Tensor = 1.0) -> None:
    """`p.grad += factor * x`; frozen parameters get nothing."""
    for p, x in zip(params, xs, strict=True):
        if p.requires_grad:
            step = (factor * x).detach().to(p.dtype)  # a new tensor, so it need not be copied
            p.grad = step if p.grad is None else p.grad + step
