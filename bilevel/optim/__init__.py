"""Bilevel optimisation on any torch model: what a problem is, and solvers that write `.grad`. Never sees audio."""
