"""Iterative solutions of (H + damping I) w = v, where H is symmetric and known only by its products with vectors."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.optim import vector

Product = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Solution:
    """What a linear solve found.

    Attributes:
        w: The solution, of the shapes of v.
        residual: |(H + damping I) w - v| / |v|; nan where it would take another product to know.
        n_products: Products with H that were taken.
        negative_curvature: A direction p with p'(H + damping I) p <= 0 (or nan) was met: the matrix is not positive
            definite, the loss is not at a minimum, and w is not to be trusted much. More damping mends it.
    """

    w: list[Tensor]
    residual: float
    n_products: int
    negative_curvature: bool = False


def conjugate_gradient(
    product: Product,
    v: list[Tensor],
    n_iter: int = 5,
    damping: float = 0.0,
    tolerance: float = 0.0,
    layerwise: bool = False,
) -> Solution:
    r"""Conjugate gradients from w = 0: exact after as many steps as H has distinct eigenvalues.

        alpha = r'r / p'Ap,   w <- w + alpha p,   r+ = r - alpha A p,   p <- r+ + (r+'r+ / r'r) p,   A = H + damping I

    A direction with p'Ap <= 0 ends it. Until then every step had lowered 1/2 w'Aw - v'w, so the last iterate is the
    best one; at the very first step that is w = 0, with residual 1.

    Args:
        product: v -> H v.
        v: Right-hand side.
        n_iter: Largest number of steps, one product each.
        damping: Added to the diagonal.
        tolerance: Stop at this relative residual.
        layerwise: Each tensor has its own alpha and beta, as in the released code of BiSSL. That solves the system only
            if H has no blocks between tensors: otherwise the r of the recursion is not the residual, nor the p
            conjugate, so the reported residual is nan. A tensor with p'Ap <= 0 makes no step and starts anew.

    References:
        Hestenes and Stiefel, 1952.
    """
    size = float(vector.norm(v))
    w, r, p = [torch.zeros_like(x) for x in v], v, v
    if size == 0:
        return Solution(w, 0.0, 0)
    residual, n_products, negative = 1.0, 0, False
    rr = _dots(r, r, layerwise)
    while n_products < n_iter and residual > tolerance:
        ap = vector.axpy(damping, p, product(p))
        n_products += 1
        curvature = _dots(p, ap, layerwise)
        bad = ~(curvature > 0) & (rr > 0)
        negative = negative or bool(bad.any())
        if negative and not layerwise:
            break
        alpha = torch.where(curvature > 0, rr / curvature, 0.0)
        w = [x + a * d for x, a, d in zip(w, alpha, p, strict=True)]
        r = [x - a * d for x, a, d in zip(r, alpha, ap, strict=True)]
        before, rr = rr, _dots(r, r, layerwise)
        beta = torch.where((before > 0) & ~bad, rr / before, 0.0)
        p = [x + b * d for x, b, d in zip(r, beta, p, strict=True)]
        residual = float(vector.norm(r)) / size
    return Solution(w, math.nan if layerwise else residual, n_products, negative)


def neumann(
    product: Product,
    v: list[Tensor],
    n_terms: int = 5,
    step: float = 0.1,
    damping: float = 0.0,
    tolerance: float = 0.0,
) -> Solution:
    r"""The first terms of the Neumann series, w = step sum_{k=0}^{n_terms} (I - step A)^k v, A = H + damping I.

    Its error is (I - step A)^(n_terms + 1) w*: geometric if 0 < step A < 2, growing otherwise. It equals n_terms + 1
    gradient steps on 1/2 w'Aw - v'w, and the gradient of as many unrolled steps on a quadratic lower loss.

    Args:
        product: v -> H v.
        v: Right-hand side.
        n_terms: Terms after the first, one product each.
        step: Below 2 / largest eigenvalue of A.
        damping: Added to the diagonal.
        tolerance: Stop at this relative residual.

    Returns:
        The residual is that of the sum without its last term: an upper bound if the series converges (that of the
        whole sum takes another product); above 1, the step was too large.

    References:
        Lorraine, Vicol and Duvenaud, Optimizing millions of hyperparameters by implicit differentiation,
        arXiv 1911.02590, Algorithm 3.
    """
    size = float(vector.norm(v))
    if size == 0:
        return Solution([torch.zeros_like(x) for x in v], 0.0, 0)
    total, r = v, v
    residual, n_products, negative = 1.0, 0, False
    while n_products < n_terms and residual > tolerance:
        ar = vector.axpy(damping, r, product(r))
        n_products += 1
        negative = negative or not bool(vector.dot(r, ar) > 0)
        r = vector.axpy(-step, ar, r)
        total = vector.axpy(1.0, r, total)
        residual = float(vector.norm(r)) / size
    return Solution([step * x for x in total], residual, n_products, negative)


def identity(v: list[Tensor]) -> Solution:
    """Takes the whole matrix for the identity: w = v, no product; the residual is unknown."""
    return Solution(v, math.nan, 0)


def solve(
    name: str,
    product: Product,
    v: list[Tensor],
    n_terms: int,
    damping: float = 0.0,
    tolerance: float = 0.0,
    step: float = 0.1,
    layerwise: bool = False,
) -> Solution:
    """By name: cg (`n_terms` steps), neumann or identity; settings that a method does not have are left out."""
    if name == "cg":
        return conjugate_gradient(product, v, n_terms, damping, tolerance, layerwise)
    return identity(v) if name == "identity" else neumann(product, v, n_terms, step, damping, tolerance)


def check_conf(linear_solver: str, n_terms: int, step: float, damping: float, tolerance: float) -> None:
    """Refuse settings that no linear solve can take.

    Raises:
        ValueError: A name is unknown, or a number out of its range.
    """
    if linear_solver not in ("cg", "neumann", "identity"):
        raise ValueError(f"linear_solver {linear_solver!r}: expected cg, neumann or identity")
    if n_terms < 0 or step <= 0 or damping < 0 or tolerance < 0:
        raise ValueError(
            f"n_terms {n_terms}, step {step}, damping {damping}, tolerance {tolerance}: expected numbers >= 0, step > 0"
        )


def _dots(xs: list[Tensor], ys: list[Tensor], layerwise: bool) -> Tensor:
    """Inner product of each pair of tensors: (n,); their sum in every place unless `layerwise`."""
    each = torch.stack([(x * y).sum() for x, y in zip(xs, ys, strict=True)])
    return each if layerwise else each.sum().expand_as(each)
