"""Bilevel optimisation on any torch model, with torch alone; never sees audio.

`problem` says what a problem is, `solver` what a solver is and how one is built by name, `vector` holds the algebra and
`schedule` the ramps. Every other module is one solver, or what several solvers share.
"""

from bilevel.optim.solver import REPORT, BilevelSolver, build, names

__all__ = ["REPORT", "BilevelSolver", "build", "names"]
