"""Conformance kit for weightings of objectives, ours and other people's: what levels and checkpoints rely on."""

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevel.moo.weighting import FLOAT, ObjectiveWeighting

Make = Callable[[int], ObjectiveWeighting]
SCALES = (1e-10, 1e-5, 1.0, 1e5, 1e10, 1e15)


def check_weighting(make: Make) -> None:
    """Check that a weighting keeps the contract of `bilevel.moo.weighting.ObjectiveWeighting`.

    On random gradients of one to five objectives: shape, type and finiteness at scales from 1e-10 to 1e15, also with
    zero, equal and opposite gradients; equal calls give equal weights and leave torch's global generator and the
    arguments alone; permuted objectives get permuted weights (unless `random` or remembering); weights on the simplex
    (`convex`); no objective rises (`non_conflicting`); an absent objective does not stop the others; a state that
    went through `torch.save` continues bit by bit and is not changed by later steps; `reset` makes as new; what
    cannot be is refused.

        check_weighting(MyWeighting)
        check_weighting(functools.partial(MyWeighting, gamma=0.1))

    Args:
        make: Builds the weighting from the number of objectives; a new one at each call, equal to the last.

    Raises:
        AssertionError: A rule is broken; the message names it.
    """
    for m in (1, 2, 3, 5):
        for scale in SCALES:
            _check_weights(make(m), scale * gradients(m), f"{m} objectives at scale {scale:g}")
    for name, rows in special_gradients().items():
        _check_weights(make(len(rows)), rows, f"{name} gradients")
    _check_repeatability(make)
    _check_permutation(make)
    _check_absent(make)
    _check_state(make)
    _check_refusals(make)


def gradients(m: int, seed: int = 0, n: int = 8) -> Tensor:
    """Random rows (m, n), float64, the first ten times as long as the others, most pairs in conflict."""
    rows = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=FLOAT)
    rows = rows - 0.3 * rows.sum(0, keepdim=True)
    rows[0] *= 10
    return rows


def special_gradients() -> dict[str, Tensor]:
    """Rows (m, 3) that break what divides by them: zero, equal, opposite, dependent."""
    a, b = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]], dtype=FLOAT)
    return {
        "zero": torch.zeros(3, 3, dtype=FLOAT),
        "one zero": torch.stack([a, 0 * a, b]),
        "equal": torch.stack([a, a, a]),
        "opposite": torch.stack([a, -a]),
        "dependent": torch.stack([a, b, a + b, -b]),
    }


def call(weighting: ObjectiveWeighting, rows: Tensor, present: Sequence[int] | None = None) -> Tensor:
    """One whole step: `track`, `weights`, `update`. Rows (m, n) are those of the objectives that are present."""
    index = range(len(rows)) if present is None else present
    if weighting.needs == "rows" and len(rows):
        found = weighting.track({i: [row] for i, row in zip(index, rows, strict=True)})
        rows = torch.stack([found[i][0] for i in index])
    losses = torch.arange(1, len(rows) + 1, dtype=FLOAT)
    weights = weighting.weights(rows @ rows.T, losses, present)
    weighting.update(0.9 * losses, present)
    return weights


def _check_weights(weighting: ObjectiveWeighting, rows: Tensor, where: str) -> None:
    weights = call(weighting, rows)
    assert weights.shape == (len(rows),), f"shape: found {tuple(weights.shape)} for {where}"
    assert weights.dtype == FLOAT, f"type: found {weights.dtype} for {where}, expected {FLOAT}"
    assert bool(weights.isfinite().all()), f"weights are finite: found {weights.tolist()} for {where}"
    if weighting.convex:
        on_simplex = bool((weights >= -1e-12).all()) and abs(float(weights.sum()) - 1) < 1e-9
        assert on_simplex, f"weights are on the simplex: found {weights.tolist()} for {where}"
    if weighting.non_conflicting:
        direction, lengths = weights @ rows, rows.norm(dim=1)
        # Rounding: against the longest gradient that enters the direction, not against the direction, which may vanish.
        bound = 1e-6 * lengths * (weights.abs() * lengths).max()
        assert bool((rows @ direction >= -bound).all()), f"no objective rises: found {rows @ direction} for {where}"


def _check_repeatability(make: Make) -> None:
    runs = []
    rows = gradients(4)
    gramian, losses = rows @ rows.T, torch.ones(4, dtype=FLOAT)
    kept = gramian.clone()
    for noise in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise)  # a weighting that draws from the global generator would differ
            before = torch.get_rng_state()
            weighting = make(4)
            for _ in range(3):
                found = weighting.weights(gramian, losses)
                weighting.update(losses)
                runs.append(found.clone())
            assert torch.equal(before, torch.get_rng_state()), "torch's global generator is left as it was"
    assert torch.equal(kept, gramian), "arguments stay unchanged"
    equal = all(torch.equal(a, b) for a, b in zip(runs[:3], runs[3:], strict=True))
    assert equal, "equal weightings give equal weights; random numbers come from an explicit generator"


def _check_permutation(make: Make) -> None:
    if make(2).random:
        return
    rows, order = gradients(4), torch.tensor([2, 0, 3, 1])
    if make(2).needs == "losses":
        rows = rows[:1].expand(4, -1)  # the losses of `call` do not move along
        order = torch.arange(4)
    plain, permuted = call(make(4), rows), call(make(4), rows[order])
    equal = torch.allclose(permuted, plain[order], rtol=1e-6, atol=1e-9)
    assert equal or _by_place(make), f"permuted objectives get permuted weights: {permuted} against {plain[order]}"


def _by_place(make: Make) -> bool:
    """Whether equal objectives are told apart, as by constant weights that were given."""
    weights = call(make(4), gradients(1).expand(4, -1))
    return not torch.allclose(weights, weights[:1].expand(4), rtol=1e-6)


def _check_absent(make: Make) -> None:
    rows = gradients(4)
    weighting = make(4)
    call(weighting, rows)
    some = call(weighting, rows[[0, 2]], present=[0, 2])
    assert some.shape == (2,), f"absent objectives: found {tuple(some.shape)} weights for 2 that are present"
    assert bool(some.isfinite().all()), f"absent objectives: found {some.tolist()}"
    if weighting.convex:
        assert abs(float(some.sum()) - 1) < 1e-9, f"absent objectives: weights on the simplex, found {some.tolist()}"
    assert call(weighting, rows[:0], present=[]).shape == (0,), "absent objectives: no weights when none is present"
    all_again = call(weighting, rows)
    assert all_again.shape == (4,), "absent objectives: they come back"


def _check_state(make: Make) -> None:
    rows = [gradients(4, seed) for seed in range(5)]
    straight, resumed, other = make(4), make(4), make(4)
    for row in rows[:3]:
        call(straight, row)
    snapshot = straight.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.pt")
        torch.save(snapshot, path)
        resumed.load_state_dict(torch.load(path, weights_only=True))
    runs = [_run(straight, rows[3:]), _run(resumed, rows[3:])]
    assert torch.equal(*runs), "a weighting continues from its saved state bit by bit"
    for weighting in (straight, other):
        weighting.load_state_dict(snapshot)
        same = torch.equal(_run(weighting, rows[3:]), runs[0])
        assert same, "a state is a copy: steps after state_dict or load leave it as it was"
    straight.reset()
    assert torch.equal(_run(straight, rows), _run(make(4), rows)), "reset makes a weighting as new"
    _refused(lambda: make(4).load_state_dict({"no such key": 0}), "load_state_dict: a state with unknown keys")


def _run(weighting: ObjectiveWeighting, rows: list[Tensor]) -> Tensor:
    return torch.stack([call(weighting, row) for row in rows])


def _check_refusals(make: Make) -> None:
    losses = torch.ones(2, dtype=FLOAT)
    _refused(lambda: make(0), "no objectives")
    _refused(lambda: make(2).weights(torch.eye(3), losses), "a Gramian of another size")
    _refused(lambda: make(2).weights(torch.eye(2) * torch.nan, losses), "a Gramian that is not finite")
    _refused(lambda: make(2).weights(torch.eye(2), losses, present=[1, 0]), "indices that do not rise")
    _refused(lambda: make(2).weights(torch.eye(2), losses, present=[0, 2]), "an index that is no objective")


def _refused(action: Callable[[], Any], what: str) -> None:
    try:
        action()
    except ValueError:
        return
    raise AssertionError(f"{what} must raise ValueError")
