"""Quadratic programs over z >= 0 that are given by a Gramian; MGDA, CAGrad and UPGrad are such programs."""

import torch
from torch import Tensor

FLOOR = 1e-10  # of eigenvalues of the cosine matrix; a Gramian in float32 may be indefinite by 1e-7


def cosines(gramian: Tensor, floor: float | None = None) -> tuple[Tensor, Tensor]:
    """Cosine matrix and lengths of the rows that a Gramian (m, m) belongs to: G = S C S with S = diag(lengths).

    The length of a zero row is given as one, its cosines are zero. With a floor, eigenvalues of C below it are raised
    to it: then C is positive definite, and of all solutions of a program that has many, one near the shortest is
    found.
    """
    lengths = gramian.diagonal().clamp(min=0).sqrt()
    lengths = torch.where(lengths > 0, lengths, 1.0)
    found = gramian / lengths[:, None] / lengths
    if floor is not None:
        values, vectors = torch.linalg.eigh((found + found.T) / 2)
        found = (vectors * values.clamp(min=floor)) @ vectors.T
    return found, lengths


def minimise(gramian: Tensor, linear: Tensor) -> Tensor:
    r"""Z (m,) that minimises 1/2 z^T G z + c^T z over z >= 0.

    Exact after finitely many steps, for rows of any lengths: each z_m is measured in 1 / |g_m|, where the matrix is
    that of cosines.

    Args:
        gramian: G, (m, m), positive semi-definite but for rounding.
        linear: c, (m,); where z is not bounded by G, expect values that only the floor of the eigenvalues bounds.

    References:
        Lawson and Hanson, Solving Least Squares Problems, 1974, Algorithm NNLS (23.10), here by G = A^T A and c =
        -A^T b.
    """
    matrix, lengths = cosines(gramian, FLOOR)
    slope_0 = -linear / lengths
    tolerance = 1e-13 * float(slope_0.abs().max())
    z = torch.zeros_like(linear)
    passive = torch.zeros(len(z), dtype=torch.bool)
    refused = passive.clone()  # entering would, by rounding, lead out again at once
    for _ in range(20 * len(z)):
        slope = (slope_0 - matrix @ z).masked_fill(passive | refused, -torch.inf)
        entering = int(slope.argmax())
        if slope[entering] <= tolerance:
            break
        passive[entering] = True
        new = _unconstrained(matrix, slope_0, passive)
        if new[entering] <= 0:
            passive[entering] = False
            refused[entering] = True
            continue
        while bool((new[passive] <= 0).any()):
            falling = passive & (new <= 0)
            steps = torch.where(falling, z / (z - new).where(falling, 1.0), torch.inf)
            z = z + steps.min() * (new - z)
            passive = passive & (z > 1e-15 * z.max())
            passive[steps.argmin()] = False
            new = _unconstrained(matrix, slope_0, passive)
        z = new
        refused.fill_(False)
    return z / lengths


def _unconstrained(matrix: Tensor, right: Tensor, passive: Tensor) -> Tensor:
    """Solution of the equations of the passive variables; the others are zero."""
    found = torch.zeros_like(right)
    index = passive.nonzero().squeeze(1)
    if len(index):
        found[index] = torch.linalg.solve(matrix[index][:, index], right[index])
    return found


def nearest_to_zero(gramian: Tensor) -> Tensor:
    r"""Weights (m,) of the shortest vector in the convex hull of the rows: argmin over the simplex of lam^T G lam.

    lam = z / sum z for the z >= 0 that minimises 1/2 z^T G z - sum z: its conditions (G z)_m = 1 where z_m > 0 and >= 1
    elsewhere are those of lam, times sum z. Rows of zeros are left out (weight 0); equal weights where all are zero.
    """
    moving = gramian.diagonal() > 0
    if not moving.any():
        return torch.full_like(gramian.diagonal(), 1 / len(gramian))
    index = moving.nonzero().squeeze(1)
    inner = gramian[index][:, index]
    inner = inner / inner.diagonal().mean()  # the unit does not matter, but squares of 1e-200 would
    z = minimise(inner, -torch.ones_like(inner.diagonal()))
    lam = torch.zeros_like(gramian.diagonal())
    lam[index] = z / z.sum()
    return lam
