"""Gradients of several objectives, one at a time, by the parameters that they share."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.moo.weighting import check_known

Rows = list[Tensor | None]  # one gradient for each tensor; None is zero


class Collector:
    r"""Holds g_m, the gradient of objective m by the shared parameters, and its gradient by the parameters of its head.

    For each objective: forward, `add` (one backward pass, whose graph is freed), and so on: the cost is linear in the
    number of objectives, and one graph exists at a time. Several `add` of one objective and batch are micro-batches;
    their mean is its gradient. Then `reduce`, `gramians`, `combine`.

    `.grad` is touched by `combine` alone, which adds to it: sum_m w_m g_m for shared parameters, the own, unweighted
    gradient for heads. Rows are float32 (float64 for such parameters), without the loss scale.

    With chosen tensors (`choose`), rows are of those alone: the graphs are kept, and `combine` makes one backward pass
    of the weighted sum for all other shared tensors. They are trained like the chosen ones; none is left without an
    update. Where the weights are known before the step (`commit`), each `add` weighs the rest of its gradient at once:
    one graph at a time again, and as many passes as the sum has.

    **Several processes.** Hand in the model itself, not its DistributedDataParallel, whose hooks these passes do not
    call. `reduce` averages the rows over processes, not the Gramians: products of rows that are not averaged yet
    would be others. Every process must call it, also one that has no data of an objective; the mean is over those
    that have.

    **Mixed precision.** `scale_loss` multiplies a loss before its pass; rows are divided by it, and what `combine`
    adds is multiplied, so that the scaler's own unscaling and search for infinities go on as always. It must not
    divide by the number of micro-batches.

    Args:
        shared: Shared parameters by name.
        heads: Objective -> parameters of its head; several objectives may have one in common. Its keys are the
            objectives.

    Raises:
        ValueError: A parameter is shared and in a head, too.
    """

    def __init__(self, shared: Mapping[str, Parameter], heads: Mapping[str, Sequence[Parameter]]) -> None:
        self.names, self.shared = list(shared), list(shared.values())
        self.objectives = list(heads)
        self.heads = {name: list(dict.fromkeys(params)) for name, params in heads.items()}
        name_of = {id(p): name for name, p in shared.items()}
        for objective, params in self.heads.items():
            both = [name_of[id(p)] for p in params if id(p) in name_of]
            if both:
                raise ValueError(
                    f"head of {objective}: {both} are shared, too; expected each parameter in one of the two"
                )
        self.n_passes = 0
        self.clear()

    def clear(self) -> None:
        """Forget rows and graphs; all tensors are held again."""
        self.held = list(range(len(self.shared)))
        self.rows: dict[tuple[int, int], Rows] = {}  # (objective, batch) -> gradients of held tensors, then of the head
        self.counts: dict[tuple[int, int], int] = {}
        self.losses: dict[int, list[Tensor]] = {}
        self._graphs: list[tuple[int, int, Tensor]] = []
        self._scale: Callable[[Tensor], Tensor] | None = None
        self._shares: dict[int, float] | None = None  # after `commit`: what one `add` of an objective counts
        self._expected: Mapping[int, int] = {}
        self._direction: Rows = []  # after `commit`: of the tensors that are not held
        self._ratio = 1.0  # number of `add` over the expected one
        self.n_passes = 0

    def choose(self, tensors: Sequence[int]) -> None:
        """Hold gradients of these tensors alone, until `clear`. Before the first `add`."""
        self.held = sorted(tensors)

    def commit(
        self,
        tensors: Sequence[int],
        weights: Mapping[int, float],
        counts: Mapping[int, int],
        n_batches: Mapping[int, int],
    ) -> None:
        """Hold gradients of these tensors alone, and weigh the rest of each when it is found, until `clear`.

        The mean over micro-batches needs their number when the first one comes, so it is given here. Before the first
        `add`.

        Args:
            tensors: Indices of the tensors to hold.
            weights: Objective's index -> weight; `combine` must have the same.
            counts: Objective's index -> number of `add` for each of its batches, in all processes together, or numbers
                in that proportion; an objective that is not named is absent.
            n_batches: Objective's index -> number of independent batches.
        """
        self.choose(tensors)
        self._direction = [None] * (len(self.shared) - len(self.held))
        self._expected = {m: n for m, n in counts.items() if n}
        self._shares = {m: weights[m] / (n_batches[m] * n) for m, n in self._expected.items()}

    def add(
        self,
        objective: str,
        loss: Tensor,
        batch: int = 0,
        scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss,
        retain_graph: bool = False,
    ) -> None:
        """Find the gradient of one objective on one (micro-)batch.

        Args:
            objective: Its name.
            loss: Scalar, mean over its batch.
            batch: 0 or 1, which of the independent batches of the step.
            scale_loss: Loss scale of mixed precision; the same in all calls of a step.
            retain_graph: Keep the graph, as for several losses of one forward pass (all but the last).

        Raises:
            ValueError: An unknown objective, or one that `commit` took for absent.
        """
        check_known("objective", [objective], self.objectives)
        m = self.objectives.index(objective)
        if self._shares is not None and m not in self._shares:
            raise ValueError(
                f"objective {objective}: found a loss, expected none by the counts that the step began with"
            )
        partial = self._shares is None and len(self.held) < len(self.shared)
        params = [self.shared[t] for t in self.held] + self.heads[objective]
        rest = [] if self._shares is None else self._rest()
        found = _gradients(scale_loss(loss), params + rest, retain_graph or partial)
        if self._shares is not None:
            self._absorb(self._shares[m], found[len(params) :])
        new = [None if g is None else _exact(g) for g in found[: len(params)]]
        key = (m, batch)
        old = self.rows.get(key)
        self.rows[key] = new if old is None else [_sum(a, b) for a, b in zip(old, new, strict=True)]
        self.counts[key] = self.counts.get(key, 0) + 1
        self.losses.setdefault(m, []).append(loss.detach())
        self._scale = scale_loss
        self.n_passes += 1
        if partial:
            self._graphs.append((m, batch, loss))

    def _rest(self) -> list[Parameter]:
        """Shared parameters that are not held."""
        held = set(self.held)
        return [p for i, p in enumerate(self.shared) if i not in held]

    def _absorb(self, share: float, found: Rows) -> None:
        """Add a gradient by the tensors that are not held to their direction."""
        for t, g in enumerate(found):
            total = self._direction[t]
            if g is not None and total is None:
                exact = _exact(g)
                self._direction[t] = share * exact if share != 0 else torch.zeros_like(exact)
            elif g is not None and share != 0:  # 0 * inf is nan, as in `combine`
                total.add_(g, alpha=share)

    def reduce(self, n_batches: Mapping[int, int] | None = None) -> None:
        """Sums of micro-batches become means, over processes as well. Once a step, after all `add`.

        Args:
            n_batches: Objective's index -> number of independent batches; 1 when None.

        Raises:
            ValueError: An objective has data for some of its batches only, or other counts than `commit` was told.
        """
        expected = {m: (n_batches or {}).get(m, 1) for m in range(len(self.objectives))}
        keys = [(m, b) for m, n in expected.items() for b in range(n)]
        unknown = sorted(set(self.counts) - set(keys))
        if unknown:
            m, b = unknown[0]
            raise ValueError(
                f"objective {self.objectives[m]}: found batch {b}, expected {expected[m]} batches in a step"
            )
        counts = [self.counts.get(key, 0) for key in keys]
        sums = [float(sum(self.losses.get(m, []))) for m in expected]
        device = self.shared[0].device
        scales = [0.0, 0.0] if self._scale is None else [float(self._scale(torch.ones((), device=device))), 1.0]
        if _n_processes() > 1:
            together = torch.tensor(counts + sums + scales, dtype=torch.float64, device=device)
            torch.distributed.all_reduce(together)
            counts, sums = [int(c) for c in together[: len(keys)]], together[len(keys) : -2].tolist()
            scales = together[-2:].tolist()
        # A process without any data learns the loss scale from the others.
        self.factor = scales[0] / scales[1] if scales[1] else 1.0
        self.counts = {key: count for key, count in zip(keys, counts, strict=True) if count}
        for m, n in expected.items():
            if 0 < sum((m, b) in self.counts for b in range(n)) < n:
                raise ValueError(
                    f"objective {self.objectives[m]}: some of its {n} batches are missing; expected all or none"
                )
        if self._shares is not None and self.counts:
            self._check_counts(expected)
        for key in self.counts:
            if _n_processes() > 1:
                params = [self.shared[t] for t in self.held] + self.heads[self.objectives[key[0]]]
                self.rows[key] = _summed(self.rows.get(key, [None] * len(params)), params)
            share = 1 / (self.factor * self.counts[key])
            if share != 1:  # saves a copy of all gradients
                self.rows[key] = [None if g is None else share * g for g in self.rows[key]]
        self.n_batches = {m: n for m, n in expected.items() if (m, 0) in self.counts}
        self.means = {m: sums[m] / sum(self.counts[m, b] for b in range(n)) for m, n in self.n_batches.items()}

    def _check_counts(self, n_batches: Mapping[int, int]) -> None:
        """Find by what `_direction` is too long; objectives without weight are not in it."""
        counting = [m for m, share in self._shares.items() if share != 0]
        ratios = {self.counts.get((m, b), 0) / self._expected[m] for m in counting for b in range(n_batches[m])}
        if len(ratios) > 1 or ratios == {0.0}:
            found = {self.objectives[m]: self.counts.get((m, 0), 0) for m in counting}
            expected = {self.objectives[m]: self._expected[m] for m in counting}
            raise ValueError(
                f"losses of each objective in this step: found {found}, expected {expected} or a multiple of it, as "
                "weights are applied before all losses are known; give `Levels.start` the counts, or set delayed: false"
            )
        if ratios:
            self._ratio = ratios.pop()

    def present(self) -> list[int]:
        """Indices of the objectives that have data in this step, in any process."""
        return sorted(self.n_batches)

    def row(self, m: int) -> Rows:
        """Gradient of objective m by the held tensors, mean over its independent batches."""
        return [self._mean(m, t) for t in range(len(self.held))]

    def replace(self, m: int, rows: Rows) -> None:
        """Use other gradients by the held tensors for objective m."""
        for batch in range(self.n_batches[m]):
            self.rows[m, batch] = [*rows, *self.rows[m, batch][len(self.held) :]]

    def _mean(self, m: int, t: int) -> Tensor | None:
        rows = [self.rows[m, b][t] for b in range(self.n_batches[m])]
        found = [g for g in rows if g is not None]
        if not found:
            return None
        return found[0] if len(rows) == 1 else sum(found[1:], found[0]) / len(rows)

    def gramians(self, cross: bool = False) -> Tensor:
        """Products of gradients for each held tensor, as (T, M, M) float64 on the CPU; zeros for absent objectives.

        Args:
            cross: J_1 J_2^T of the two independent batches (of an objective with one batch, that one) instead of J J^T
                for the mean over batches.
        """
        m_all, found = len(self.objectives), []
        for t, index in enumerate(self.held):
            like = self.shared[index]
            left = self._matrix(t, like, 0 if cross else None)
            right = self._matrix(t, like, 1) if cross else left
            found.append(left @ right.T)
        if not found:
            return torch.zeros(0, m_all, m_all, dtype=torch.float64)
        return torch.stack([g.to(found[0].dtype) for g in found]).to("cpu", torch.float64)

    def _matrix(self, t: int, like: Tensor, batch: int | None) -> Tensor:
        """Gradients of all objectives by one tensor: (M, P_t)."""
        zeros = _exact(like.detach()).new_zeros(like.numel())
        rows = []
        for m in range(len(self.objectives)):
            g = None
            if m in self.n_batches:
                g = self._mean(m, t) if batch is None else self.rows[m, min(batch, self.n_batches[m] - 1)][t]
            rows.append(zeros if g is None else g.reshape(-1))
        return torch.stack(rows)

    def combine(self, weights: Tensor) -> None:
        """Add the direction to `.grad`.

        Args:
            weights: (m,), one for each objective that is `present`.
        """
        present = self.present()
        lam = dict(zip(present, weights.tolist(), strict=True))
        for t, index in enumerate(self.held):
            total = None
            for m in present:
                g = self._mean(m, t)
                if g is not None:
                    total = torch.zeros_like(g) if total is None else total
                    if lam[m] != 0:  # 0 * inf is nan: an objective that does not count must not spoil the others
                        total.add_(g, alpha=self.factor * lam[m])
            if total is not None:
                _add(self.shared[index], total)
        for m in present:
            for h, p in enumerate(self.heads[self.objectives[m]], start=len(self.held)):
                g = self._mean(m, h)
                if g is not None:
                    _add(p, self.factor * g)  # always a new tensor: two of autograd's may be one
        rest = self._rest()
        if rest:
            found = self._weighted_pass(lam, rest) if self._shares is None else self._direction
            if _n_processes() > 1:
                found = _summed(found, rest)
            for p, g in zip(rest, found, strict=True):
                if g is not None:
                    _add(p, g if self._ratio == 1 else g / self._ratio)

    def _weighted_pass(self, lam: Mapping[int, float], rest: Sequence[Parameter]) -> Rows:
        """One backward pass of the weighted sum, for the shared tensors that are not held."""
        terms = [
            lam[m] / (self.n_batches[m] * self.counts[m, batch]) * loss
            for m, batch, loss in self._graphs
            if lam[m] != 0
        ]
        found: Rows = [None] * len(rest)
        if terms:
            found = _gradients(self._scale(sum(terms[1:], terms[0])), rest, False)
            self.n_passes += 1
        return found


def _gradients(loss: Tensor, params: Sequence[Parameter], retain_graph: bool) -> Rows:
    """Gradients; None for frozen parameters and those that the loss does not depend on."""
    wanted = [i for i, p in enumerate(params) if p.requires_grad]
    found: Rows = [None] * len(params)
    if loss.requires_grad and wanted:
        some = torch.autograd.grad(loss, [params[i] for i in wanted], retain_graph=retain_graph, allow_unused=True)
        for i, g in zip(wanted, some, strict=True):
            found[i] = g
    return found


def _exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _add(p: Parameter, g: Tensor) -> None:
    if p.requires_grad:
        step = g.detach().to(p.dtype)
        p.grad = step if p.grad is None else p.grad + step


def over_processes(counts: Sequence[int], device: torch.device) -> list[int]:
    """Sums of whole numbers over processes; every process must call it."""
    if _n_processes() == 1:
        return list(counts)
    together = torch.tensor(counts, dtype=torch.int64, device=device)
    torch.distributed.all_reduce(together)
    return together.tolist()


def _n_processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _summed(rows: Rows, params: Sequence[Parameter]) -> Rows:
    """Sums over processes; zeros for None, because another process may have a gradient there."""
    filled = [_exact(torch.zeros_like(p) if g is None else g) for g, p in zip(rows, params, strict=True)]
    if not filled:
        return rows
    long = torch.cat([g.reshape(-1) for g in filled])
    torch.distributed.all_reduce(long)
    return [part.view_as(p) for part, p in zip(long.split([p.numel() for p in params]), params, strict=True)]
