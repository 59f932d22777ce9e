"""Transport network design: which links to build when passengers choose between the network and what they have now."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.optim.saddle import Saddle
from bilevel.problems.network import Network


class Transport:
    r"""Capacities x of links (upper), and the shares y and flows z with which passengers respond (lower).

        f(x, y)      = sum_l c_l x_l - sum_k m_k w_k y_k                                          (minus the utility)
        g(y, z)      = sum_k w_k [y_k (ln y_k - 1) + (1 - y_k) (ln(1 - y_k) - 1) + u_k (1 - y_k) + sum_l d_l z_kl]
        capacity:      sum_k w_k z_kl - x_l <= 0                                                  for each link l
        conservation:  w_k (out - in of z_k) = w_k y_k at the origin of k, -w_k y_k at its destination, 0 elsewhere

    Without capacities the share is a logit choice, y_k = sigmoid(u_k - shortest path of k).

    Passengers with one origin may share one flow: all terms of w_k z_kl are alike for all k, and a flow out of one
    origin splits into flows to its destinations. With `commodities="origin"` the same problem has S L instead of K L
    flows and S^2 instead of K S equations of conservation.

    Flows are trips w_k z_kl. In the plain form the solver's variables are shares and flows. The scaled form makes steps
    of 1 suit every network (1 / gamma and gamma for the penalised saddle). There a share is y = sin(a / 2)^2, in which
    the entropy's curvature w / (y (1 - y)) becomes w; and with column scales t_j (1/2 for angles a, `flow_scale` for
    flows) and the Jacobian J of the constraints, column j is multiplied by (t_j / sum_i |J_ij|)^(1/2) and row i by
    (sum_j |J_ij| t_j)^(-1/2), which gives it a norm of at most 1. What a solver sees of constraints and multipliers is
    scaled likewise; `capacity_prices` undoes it.

    It is a `bilevel.optim.problem.ConstrainedProblem` in float64; batches are ignored.

    Args:
        network: What `read_network` returns.
        capacity: (L,) start of x.
        commodities: "pair", one flow for each pair as published, or "origin".
        scaled: False for methods that need constraints affine in the variables.
        flow_scale: Larger: longer steps of flows, shorter ones of multipliers.
        floor: Smallest capacity.
        eps: Shares stay in [eps, 1 - eps].

    References:
        Jiang et al., arXiv 2406.10148, Section 4.3. Pock and Chambolle, Diagonal preconditioning for first order
        primal-dual algorithms in convex optimization, ICCV 2011, Lemma 2.
    Deviations:
        The primal step of flows has w_k mu where the released code has mu. eps is 1e-6 instead of .01: where capacities
        are at their floor, no share of .01 can travel. No upper bound on flows: it never binds at a solution.
    """

    def __init__(
        self,
        network: Network,
        capacity: Tensor,
        commodities: str = "pair",
        scaled: bool = True,
        flow_scale: float = 0.3,
        floor: float = 1e-3,
        eps: float = 1e-6,
    ) -> None:
        if commodities not in ("pair", "origin"):
            raise ValueError(f"commodities {commodities!r}: expected pair or origin")
        if not (flow_scale > 0 and floor > 0 and 0 < eps < 0.5):
            raise ValueError(f"flow_scale {flow_scale}, floor {floor}, eps {eps}: expected all > 0, eps < 0.5")
        self.network, self.commodities, self.scaled = network, commodities, scaled
        self.floor, self.eps = floor, eps
        n_pairs, n_links, n = len(network.origin), len(network.tail), network.n_stations
        flow_of = torch.arange(n_pairs) if commodities == "pair" else network.origin
        n_flows = int(flow_of.max()) + 1
        self.incidence = _zeros(n, n_links)  # leaves +1, enters -1
        self.incidence[network.tail, torch.arange(n_links)] = 1.0
        self.incidence[network.head, torch.arange(n_links)] = -1.0
        # Positions, in the flattened (flows, S) supplies, where a pair's trips get on and off.
        self._on, self._off = flow_of * n + network.origin, flow_of * n + network.destination
        self._supply_shape = (n_flows, n)
        self._link_scale, self._station_scale = 1.0, torch.ones(n_flows, n, dtype=torch.float64)
        self._angle_scale, self._flow_scale = torch.ones(n_pairs, dtype=torch.float64), 1.0
        if scaled:
            # A flow is in two equations and one capacity; |d(w y) / da| <= w / 2, and a is in two equations.
            self._angle_scale, self._flow_scale = (0.5 / network.demand).sqrt(), math.sqrt(flow_scale / 3)
            ends = torch.cat([self._on, self._off])
            angles = _zeros(n_flows * n).index_add(0, ends, network.demand.repeat(2), alpha=0.5 * 0.5).view(n_flows, n)
            self._station_scale = (self.incidence.abs().sum(1) * flow_scale + angles).rsqrt()
            self._link_scale = (n_flows * flow_scale) ** -0.5
        self._low, self._high = (self._angle(torch.full((n_pairs,), y, dtype=torch.float64)) for y in (eps, 1 - eps))
        self._revenue, self._outside = network.revenue * network.demand, network.outside * network.demand
        self.x = Parameter(capacity.detach().to(torch.float64).clone())
        self.angle = Parameter(self._angle(torch.full((n_pairs,), 0.5, dtype=torch.float64)))
        self.flow = Parameter(_zeros(n_flows, n_links))

    def upper(self, batch: Any) -> Tensor:
        """The loss f: cost of building minus revenue."""
        return self.network.building @ self.x - self._revenue @ self._share(self.angle)

    def lower(self, batch: Any) -> Tensor:
        """The loss g: what passengers minimise."""
        share = self._share(self.angle)
        entropy = share * share.log() + (1 - share) * (-share).log1p() - 1
        ride = (self._flow_scale * self.flow).sum(0) @ self.network.travel
        return self.network.demand @ entropy + self._outside @ (1 - share) + ride

    def constraints(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Excess over capacities (L,) and imbalances at stations (flows S,), scaled."""
        trips = self._flow_scale * self.flow
        imbalance = trips @ self.incidence.T - self._supply(self._share(self.angle))
        return self._link_scale * (trips.sum(0) - self.x), (self._station_scale * imbalance).reshape(-1)

    def upper_params(self) -> list[Parameter]:
        """The capacities."""
        return [self.x]

    def lower_params(self) -> list[Parameter]:
        """Angles of the shares, or shares (K,), and flows (flows, L)."""
        return [self.angle, self.flow]

    @torch.no_grad()
    def project_lower(self) -> None:
        """Shares into [eps, 1 - eps], flows to at least 0."""
        self.angle.clamp_(self._low, self._high)
        self.flow.clamp_(min=0)

    @torch.no_grad()
    def project_upper(self) -> None:
        """Capacities to at least `floor`."""
        self.x.clamp_(min=self.floor)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Least and largest values of (x, y), flattened; -inf and inf where free."""
        flows = torch.zeros(self.flow.numel(), dtype=torch.float64)
        low = torch.cat([torch.full_like(self.x.detach(), self.floor), self._low, flows])
        high = torch.cat([torch.full_like(self.x.detach(), torch.inf), self._high, flows + torch.inf])
        return low, high

    @torch.no_grad()
    def evaluate(self, y: Sequence[Tensor], reported: bool = False) -> dict[str, float]:
        """Metrics of a response at the present x.

        Args:
            y: As `lower_params`.
            reported: Leave out capacities below .01 and shares below .02, as the released code does when it reports.

        Returns:
            utility: Revenue minus cost of building.
            upper: f, minus the utility.
            violation: Largest excess over a capacity, or imbalance of a flow at a station, in trips.
            served: Part of all trips that the network takes.
            capacity: Sum of x.
        """
        share, trips, x = self._share(y[0]), self._flow_scale * y[1], self.x.detach()
        excess = (trips.sum(0) - x).max()
        imbalance = (trips @ self.incidence.T - self._supply(share)).abs().max()
        if reported:
            x, share = x * (x >= 1e-2), share * (share >= 2e-2)
        utility = float(self._revenue @ share - self.network.building @ x)
        return {
            "utility": utility,
            "upper": -utility,
            "violation": float(torch.maximum(excess, imbalance).clamp(min=0)),
            "served": float(self.network.demand @ share / self.network.demand.sum()),
            "capacity": float(x.sum()),
        }

    def respond(self, n_iter: int = 20000, tolerance: float = 1e-7) -> list[Tensor]:
        """The lower level's solution at the present x, as `lower_params`: the value saddle run to its end."""
        twin = Transport(self.network, self.x, self.commodities, floor=self.floor)
        saddle = Saddle(n_iter, 1, lr_y=1.0, lr_mu=1.0, extrapolated=True, tolerance=tolerance)
        saddle.solve(twin, (), lambda: twin.lower(()), 1)
        share, trips = twin.shares(saddle.y), twin.trips(saddle.y)
        return [self._angle(share), trips / self._flow_scale]

    @torch.no_grad()
    def shares(self, y: Sequence[Tensor]) -> Tensor:
        """Share of each pair that takes the network: (K,)."""
        return self._share(y[0])

    @torch.no_grad()
    def trips(self, y: Sequence[Tensor]) -> Tensor:
        """Trips of each flow on each link: (flows, L)."""
        return self._flow_scale * y[1]

    def capacity_prices(self, mu: Tensor) -> Tensor:
        """Multipliers of the capacities in units of cost: (L,)."""
        return self._link_scale * mu

    def _share(self, angle: Tensor) -> Tensor:
        return torch.sin(angle * (0.5 * self._angle_scale)).square() if self.scaled else angle

    def _angle(self, share: Tensor) -> Tensor:
        return 2 * share.sqrt().asin() / self._angle_scale if self.scaled else share

    def _supply(self, share: Tensor) -> Tensor:
        """Trips that get on minus those that get off, for each flow and station: (flows, S)."""
        trips = self.network.demand * share
        supply = _zeros(self._supply_shape[0] * self._supply_shape[1])
        return supply.index_add(0, self._on, trips).index_add(0, self._off, trips, alpha=-1).view(self._supply_shape)


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)
