"""Conformance kit for solvers, ours and other people's: what every trainer relies on."""

import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevel.optim.solver import REPORT, BilevelSolver
from bilevel.testing.quadratic import Quadratic

Make = Callable[[], BilevelSolver]


def check_solver(make: Make, tolerance: float | None = None, processes: bool = True) -> None:
    """Check that a solver keeps the contract of `bilevel.optim.solver.BilevelSolver`.

    On quadratic problems: values stay, `.grad` is added to, every key is reported, equal calls give equal results and
    leave torch's global generator alone, a state that went through `torch.save` continues bit by bit and is not changed
    by later steps, `reset` makes as new, float32 agrees with float64, `scale_loss` multiplies. With a tolerance: the
    hypergradient, and the direct gradient where x cannot move the lower level. With processes: two gloo processes with
    half a batch each equal one, and their states each other.

        check_solver(MySolver)
        check_solver(functools.partial(MySolver, n_terms=20), tolerance=1e-6)

    Args:
        make: Builds the solver; a new one at each call, equal to the last, random generators included. A class, a
            function or a partial of them (it must travel to other processes).
        tolerance: Relative error allowed for the hypergradient once the lower level has settled; None for a solver
            that makes no such claim (single-level baselines).
        processes: Whether to start two processes, which takes some seconds.

    Raises:
        AssertionError: A rule is broken; the message names it.
    """
    _check_values_and_report(make)
    _check_repeatability(make)
    _check_accumulation(make)
    _check_state(make)
    _check_precision(make)
    _check_scale(make)
    if tolerance is not None:
        _check_hypergradient(make, tolerance)
        _check_separate_levels(make, tolerance)
    if processes:
        check_two_processes([make])


def settle(solver: BilevelSolver, problem: Quadratic, n_steps: int = 200, lr: float = 0.2) -> Tensor:
    """Let y, and what the solver owns, come to rest at a fixed x. Returns the gradient of x at the end: (m,).

    y takes plain steps along the `.grad` that the solver writes, divided by 1 + gamma where the solver has a penalty
    weight, because the curvature of what y minimises grows with it.
    """
    lr = lr / (1.0 + float(vars(solver).get("gamma", 0.0)))
    for _ in range(n_steps):
        step(solver, problem)
        if problem.y.grad is not None:
            with torch.no_grad():
                problem.y -= lr * problem.y.grad
    step(solver, problem)
    return problem.x.grad.clone()


def step(solver: BilevelSolver, problem: Quadratic, **options: Any) -> dict[str, float]:
    """One call of `backward` after the old gradients are gone."""
    for p in (problem.x, problem.y):
        p.grad = None
    return solver.backward(problem, problem.upper_batch, problem.lower_batch, **options)


def _gradients(problem: Quadratic) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in (problem.x, problem.y)]


def _equal(ours: list[Tensor], theirs: list[Tensor], rule: str) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), f"{rule}: {ours} against {theirs}"


def _close(ours: list[Tensor], theirs: list[Tensor], rule: str, rtol: float, atol: float = 0.0) -> None:
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.double(), b.double()
        assert torch.allclose(a, b, rtol=0, atol=atol + rtol * float(b.norm())), f"{rule}: {a} against {b}"


def _check_values_and_report(make: Make) -> None:
    problem = Quadratic()
    before = [p.detach().clone() for p in (problem.x, problem.y)]
    found = step(make(), problem)
    _equal([problem.x.detach(), problem.y.detach()], before, "values of the parameters stay unchanged")
    assert set(found) == set(REPORT), f"report: found {sorted(found)}, expected {sorted(REPORT)}"
    assert all(type(v) is float for v in found.values()), f"report: expected plain floats, found {found}"
    assert found["passes"] >= 1, f"report: passes {found['passes']}"
    assert not math.isnan(found["upper_loss"]), "report: upper_loss is nan although there was an upper batch"
    assert problem.x.grad is not None, "x.grad is None: the solver wrote no upper gradient"
    assert problem.x.requires_grad, "x no longer requires a gradient"


def _check_accumulation(make: Make) -> None:
    problem = Quadratic()
    step(make(), problem)
    once = _gradients(problem)
    for p, g in zip((problem.x, problem.y), once, strict=True):
        p.grad = g + 1.0
    make().backward(problem, problem.upper_batch, problem.lower_batch)
    _close(_gradients(problem), [2 * g + 1.0 for g in once], "gradients are added to .grad, not written over it", 1e-12)


def _check_repeatability(make: Make) -> None:
    runs = []
    for noise in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)  # a solver that draws from the global generator would differ
            before = torch.get_rng_state()
            problem = Quadratic()
            solver = make()
            step(solver, problem)
            step(solver, problem)
            runs.append(_gradients(problem))
            assert torch.equal(before, torch.get_rng_state()), "torch's global generator is left as it was"
    _equal(*runs, "equal solvers give equal gradients; random numbers come from an explicit generator")


def _check_state(make: Make) -> None:
    problem = Quadratic()
    straight, resumed, other = make(), make(), make()
    for _ in range(3):
        step(straight, problem)
    snapshot = straight.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.pt")
        torch.save(snapshot, path)
        resumed.load_state_dict(torch.load(path, weights_only=True))
    runs = [_run(straight, problem), _run(resumed, problem)]
    _equal(*runs, "a solver continues from its saved state bit by bit")
    for solver in (straight, other):
        solver.load_state_dict(snapshot)
        _equal(_run(solver, problem), runs[0], "a state is a copy: steps after state_dict or load leave it as it was")
    straight.reset()
    step(straight, problem)
    after_reset = _gradients(problem)
    step(make(), problem)
    _equal(after_reset, _gradients(problem), "reset makes a solver as new")
    try:
        make().load_state_dict({"no such key": 0})
    except ValueError:
        return
    raise AssertionError("load_state_dict: a state with unknown keys must raise ValueError")


def _run(solver: BilevelSolver, problem: Quadratic) -> list[Tensor]:
    """Gradients and report of one call, in a form that can be compared."""
    found = step(solver, problem)
    return [*_gradients(problem), torch.tensor(list(found.values())).nan_to_num(-1.0)]


def _check_precision(make: Make) -> None:
    found = []
    for dtype in (torch.float64, torch.float32):
        problem = Quadratic(dtype=dtype)
        step(make(), problem)
        found.append(_gradients(problem))
        assert problem.x.grad.dtype == dtype, f"gradient of a {dtype} parameter is {problem.x.grad.dtype}"
    _close(found[1], found[0], "float32 agrees with float64", 1e-2)


def _check_scale(make: Make) -> None:
    plain, scaled = Quadratic(), Quadratic()
    a, b = step(make(), plain), step(make(), scaled, scale_loss=lambda loss: 8.0 * loss)
    _close(_gradients(scaled), [8.0 * g for g in _gradients(plain)], "scale_loss multiplies the gradients", 1e-12)
    assert a["upper_loss"] == b["upper_loss"], "scale_loss must not change the reported loss"


def _check_hypergradient(make: Make, tolerance: float) -> None:
    problem = Quadratic()
    expected = problem.hypergradient()
    _close([settle(make(), problem)], [expected], "hypergradient", tolerance)


def _check_separate_levels(make: Make, tolerance: float) -> None:
    problem = Quadratic(coupled=False)
    direct = problem.rho * problem.x.detach()
    _close([settle(make(), problem)], [direct], "with a lower level that x cannot move, the direct gradient", tolerance)


def check_two_processes(makes: list[Make]) -> None:
    """Check solvers on two gloo processes, each with half a batch, against one process with all of it.

    Raises:
        AssertionError: The averaged gradients differ, or the solvers' states do; the message holds the solver.
    """
    single = []
    for make in makes:
        problem, solver = _square(), make()
        for _ in range(2):
            step(solver, problem)
        single.append(_gradients(problem))
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_half, (makes, folder), nprocs=2)
        halves = [torch.load(os.path.join(folder, f"{rank}.pt"), weights_only=True) for rank in range(2)]
    for i, make in enumerate(makes):
        (ours, our_state), (theirs, their_state) = halves[0][i], halves[1][i]
        _equal(ours, theirs, f"{make}: both processes hold the same gradients")
        _close(ours, single[i], f"{make}: two processes equal one", 1e-9, 1e-12)
        # Gradients of a quadratic are linear in the batch, so copies that follow their own half would not show there.
        assert _same(our_state, their_state), f"{make}: inner gradients are averaged, so that both states are equal"


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(ours, Tensor):
        return isinstance(theirs, Tensor) and torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return set(ours) == set(theirs) and all(_same(v, theirs[k]) for k, v in ours.items())
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))
    return ours == theirs


def _square() -> Quadratic:
    """X and y of one size, for solvers that pair their tensors."""
    return Quadratic(n_upper=6, n_lower=6)


def _half(rank: int, makes: list[Make], folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = []
    for make in makes:
        problem, solver = _square(), make()
        problem.upper_batch, problem.lower_batch = problem.half(rank)
        for _ in range(2):
            step(solver, problem)
        gradients = _gradients(problem)
        for g in gradients:  # what DistributedDataParallel, or the trainer, does; solvers may have done it already
            torch.distributed.all_reduce(g)
            g /= 2
        found.append((gradients, solver.state_dict()))
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()
