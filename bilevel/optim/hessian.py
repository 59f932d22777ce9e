"""Products of the second derivatives of a lower loss with vectors, exact or by finite differences of gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.attention import SDPBackend, sdpa_kernel

from bilevel.optim import rng, vector

HVP = ("exact", "finite_difference", "forward_difference")


@dataclass(frozen=True)
class Curvature:
    """A lower loss g at one point (x, y), on one batch, with one draw of all random numbers.

    All results are averaged over processes.

    Attributes:
        loss: Value of g.
        gradient: d_y g.
        product: p -> (d^2 g / dy^2) p, for p of the shapes of y.
        cross: w -> d_x <d_y g, w> = (d^2 g / dx dy)' w, of the shapes of x.
        passes: What one product or cross product counts for.
    """

    loss: Tensor
    gradient: list[Tensor]
    product: Callable[[list[Tensor]], list[Tensor]]
    cross: Callable[[list[Tensor]], list[Tensor]]
    passes: int


def curvature(
    hvp: str,
    loss: Callable[[], Tensor],
    upper: Sequence[Parameter],
    lower: Sequence[Parameter],
    step: float | None = None,
) -> Curvature:
    """Second derivatives by one of the methods `HVP`: `exact`, or `finite_difference` (central or forward)."""
    if hvp == "exact":
        return exact(loss, upper, lower)
    return finite_difference(loss, upper, lower, central=hvp == "finite_difference", step=step)


def check_conf(hvp: str, step: float | None) -> None:
    """Refuse an unknown method or a step of no length.

    Raises:
        ValueError: One of them.
    """
    if hvp not in HVP:
        raise ValueError(f"hvp {hvp!r}: expected {', '.join(HVP)}")
    if step is not None and step <= 0:
        raise ValueError(f"fd_step {step}: expected a length above 0, or None for one by the precision")


def exact(loss: Callable[[], Tensor], upper: Sequence[Parameter], lower: Sequence[Parameter]) -> Curvature:
    """By double backward: the graph of the gradient is built once and kept, so batch, masks and dropout are frozen.

    The loss needs a second derivative: fused recurrent and CTC kernels have none. Attention runs in its plain form
    here, since the fused ones have none either.
    """
    with sdpa_kernel(SDPBackend.MATH):
        value = loss()
        slope = vector.grad(value, lower, create_graph=True)

    def differentiate(direction: list[Tensor], params: Sequence[Parameter]) -> list[Tensor]:
        found = {}
        roots = [(s, d) for s, d in zip(slope, direction, strict=True) if s.requires_grad]
        wanted = [p for p in params if p.requires_grad]
        if roots and wanted:
            slopes, directions = zip(*roots, strict=True)
            derivatives = torch.autograd.grad(slopes, wanted, directions, retain_graph=True, allow_unused=True)
            found = {id(p): d for p, d in zip(wanted, derivatives, strict=True) if d is not None}
        return vector.mean_over_processes([found.get(id(p), torch.zeros_like(p)).detach() for p in params])

    return Curvature(
        value.detach(),
        vector.mean_over_processes([s.detach() for s in slope]),
        lambda p: differentiate(p, lower),
        lambda w: differentiate(w, upper),
        2,
    )


def finite_difference(
    loss: Callable[[], Tensor],
    upper: Sequence[Parameter],
    lower: Sequence[Parameter],
    central: bool = True,
    step: float | None = None,
) -> Curvature:
    r"""By differences of gradients along p; no second derivative, no kept graph.

        central: H p ~ [grad g(y + h p) - grad g(y - h p)] / (2 h),   error O(h^2) + O(u / h), two gradients
        forward: H p ~ [grad g(y + h p) - grad g(y)] / h,             error O(h) + O(u / h),   one gradient

    with h = step sqrt(1 + |y|) / |p| and u the machine precision of y. The derivative of a loss with kinks (ReLU) is
    that of the smoothed loss, not the one that double backward gives.

    Every gradient sees the random numbers that the first one saw (the torch generators of the CPU and of the devices
    of y; not those of numpy, nor the problem's own). Afterwards the generators are where one evaluation leaves them, so
    the next step draws new ones. A loss that changes something else when evaluated (running statistics, a moving
    average) changes it once for each gradient.

    Args:
        loss: Evaluates g at the present values of the parameters.
        upper: Tensors of x.
        lower: Tensors of y.
        central: Or forward.
        step: None: 2 u^(1/3) for central (0.01 in float32, as DARTS has it), 2 u^(1/2) for forward.

    References:
        Liu, Simonyan and Yang, DARTS, arXiv 1806.09055, eq. 8. The factor sqrt(1 + |y|): Knoll and Keyes,
        Jacobian-free Newton-Krylov methods, J. Comput. Phys. 193 (2004), section 2.3.
    """
    if step is None:
        precision = max((torch.finfo(p.dtype).eps for p in lower), default=0.0)
        step = 2.0 * precision ** (1 / 3 if central else 1 / 2)
    length = step * (1.0 + float(vector.norm([p.detach() for p in lower]))) ** 0.5
    start = rng.state(lower)
    value = loss()
    # Only forward differences need the slope in x, too.
    base = vector.grad(value, lower if central else [*lower, *upper])
    base_lower, base_upper = base[: len(lower)], base[len(lower) :]

    def gradient(direction: list[Tensor], h: float, params: Sequence[Parameter]) -> list[Tensor]:
        moved = [p.detach() + h * d for p, d in zip(lower, direction, strict=True)]
        with vector.at(lower, moved), rng.restored(start):
            return vector.grad(loss(), params)

    def differentiate(direction: list[Tensor], params: Sequence[Parameter], base: list[Tensor]) -> list[Tensor]:
        size = float(vector.norm(direction))
        if size == 0:
            return [torch.zeros_like(p) for p in params]
        h = length / size
        ahead = gradient(direction, h, params)
        behind, width = (gradient(direction, -h, params), 2 * h) if central else (base, h)
        return [(a - b) / width for a, b in zip(ahead, behind, strict=True)]

    return Curvature(
        value.detach(),
        base_lower,
        lambda p: differentiate(p, lower, base_lower),
        lambda w: differentiate(w, upper, base_upper),
        2 if central else 1,
    )
