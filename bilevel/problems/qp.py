"""Convex quadratic programs, solved to high accuracy by Clarabel (`pip install 'bilevel[problems]'`)."""

from typing import Any

import torch
from torch import Tensor


class Infeasible(ValueError):
    """No point keeps all constraints."""


class QuadraticProgram:
    r"""min_z 1/2 z' P z + q' z   subject to   A z = a,  B z <= b, for many q and (a, b) with the same P, A, B.

    The matrices are analysed once; `solve` only replaces vectors. Interior-point iterations start anew each time, as
    there is no warm start for them, but they are few (about 15).

    Args:
        p: (n, n) positive semidefinite.
        equality: A: (m_e, n).
        inequality: B: (m_i, n).
    """

    def __init__(self, p: Tensor, equality: Tensor, inequality: Tensor) -> None:
        import clarabel
        from scipy import sparse

        self._p = sparse.csc_matrix(torch.triu(p).numpy())
        self._a = sparse.csc_matrix(torch.cat([equality, inequality]).numpy())
        self._cones = [clarabel.ZeroConeT(len(equality)), clarabel.NonnegativeConeT(len(inequality))]
        self._settings = clarabel.DefaultSettings()
        self._settings.verbose = False
        self._settings.presolve_enable = False  # it would forbid the replacement of vectors
        self._settings.max_threads = 1
        # The gap is one of objectives: z itself is off by about its square root.
        self._settings.tol_gap_abs = self._settings.tol_gap_rel = 1e-12
        self._settings.tol_feas = 1e-10
        self._solver: Any = None

    def solve(self, q: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The minimiser: (n,).

        Raises:
            Infeasible: There is none.
            ArithmeticError: The solver stopped for another reason.
        """
        import clarabel

        right = torch.cat([a, b]).detach().numpy()
        if self._solver is None:
            data = (self._p, q.detach().numpy(), self._a, right, self._cones, self._settings)
            self._solver = clarabel.DefaultSolver(*data)
        else:
            self._solver.update(q=q.detach().numpy(), b=right)
        found = self._solver.solve()
        status = str(found.status)
        if "PrimalInfeasible" in status:
            raise Infeasible("quadratic program: no point keeps all constraints")
        if status not in ("Solved", "AlmostSolved"):
            raise ArithmeticError(f"quadratic program: Clarabel ended with {status}")
        return torch.tensor(found.x, dtype=q.dtype)
