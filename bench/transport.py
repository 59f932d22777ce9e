"""Inner iterations of transport network design: whole tensors against loops over pairs, stations and links.

    python bench/transport.py            # one table; --check makes a missed bar an error

One iteration is a primal step of shares and flows and a dual step of all multipliers of the value saddle, in the plain
variables. The loop is the released code's order written in Python: for each pair, for each link and station, one number
at a time; it must end where the tensors end. (The released code is MATLAB; this compares loop orders, not languages.)
Networks are square grids with links both ways between neighbours, every pair of stations a pair of passengers. Times
are CPU seconds of one process with one thread, the kinds in turn, the order reversed every round; a ratio is the median
over rounds.
"""

import argparse
import math
import statistics
import time

import torch

from bilevel.optim.saddle import Saddle
from bilevel.problems.network import Network
from bilevel.problems.transport import Transport

LR_Y, LR_MU = 1e-3, 1e-3


def grid(side: int) -> Network:
    """A grid of side x side stations."""
    generator = torch.Generator().manual_seed(side)
    n, links = side * side, []
    for i in range(n):
        links += [(i, j) for j in (i + 1,) if j % side] + [(i, i + side)] * (i + side < n)
    tail, head = torch.tensor(links + [(j, i) for i, j in links]).T
    pairs = torch.tensor([(a, b) for a in range(n) for b in range(n) if a != b]).T
    steps = (pairs[0] % side - pairs[1] % side).abs() + (pairs[0] // side - pairs[1] // side).abs()

    def around(size: int) -> torch.Tensor:
        return 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)

    n_pairs = len(steps)
    outside, revenue = steps * around(n_pairs), 2 * steps * around(n_pairs)
    return Network(n, tail, head, around(len(tail)), around(len(tail)), *pairs, around(n_pairs), outside, revenue)


class Loops:
    """The same iteration, number by number."""

    def __init__(self, network: Network, capacity: torch.Tensor, eps: float) -> None:
        self.links = list(zip(*(v.tolist() for v in (network.tail, network.head, network.travel)), strict=True))
        pairs = (network.origin, network.destination, network.demand, network.outside)
        self.pairs = list(zip(*(v.tolist() for v in pairs), strict=True))
        self.capacity, self.eps = capacity.tolist(), eps
        self.share = [0.5] * len(self.pairs)
        self.flow = [[0.0] * len(self.links) for _ in self.pairs]
        self.mu = [0.0] * len(self.links)
        self.nu = [[0.0] * network.n_stations for _ in self.pairs]

    def iterate(self) -> None:
        """A primal and a dual step."""
        for k, (origin, destination, demand, outside) in enumerate(self.pairs):
            nu, share, flow = self.nu[k], self.share[k], self.flow[k]
            slope = demand * (math.log(share / (1 - share)) - outside - nu[origin] + nu[destination])
            self.share[k] = min(max(share - LR_Y * slope, self.eps), 1 - self.eps)
            for n, (tail, head, travel) in enumerate(self.links):
                flow[n] = max(0.0, flow[n] - LR_Y * (travel + self.mu[n] + nu[tail] - nu[head]))
        load = [0.0] * len(self.links)
        for k, (origin, destination, demand, _) in enumerate(self.pairs):
            balance = [0.0] * len(self.nu[k])
            for n, (tail, head, _) in enumerate(self.links):
                z = self.flow[k][n]
                load[n] += z
                balance[tail] += z
                balance[head] -= z
            balance[origin] -= demand * self.share[k]
            balance[destination] += demand * self.share[k]
            for i, value in enumerate(balance):
                self.nu[k][i] += LR_MU * value
        for n, limit in enumerate(self.capacity):
            self.mu[n] = max(0.0, self.mu[n] + LR_MU * (load[n] - limit))


def tensors(network: Network, capacity: torch.Tensor, commodities: str, n_iter: int) -> tuple[float, torch.Tensor]:
    """Seconds of an iteration, and the shares after them."""
    problem = Transport(network, capacity, commodities, scaled=False)
    saddle = Saddle(n_iter, 1, LR_Y, LR_MU)
    start = time.process_time()
    saddle.solve(problem, (), lambda: problem.lower(()), 1)
    return (time.process_time() - start) / n_iter, problem.shares(saddle.y)


def loops(network: Network, capacity: torch.Tensor, n_iter: int) -> tuple[float, torch.Tensor]:
    """Likewise."""
    model = Loops(network, capacity, eps=1e-6)
    start = time.process_time()
    for _ in range(n_iter):
        model.iterate()
    return (time.process_time() - start) / n_iter, torch.tensor(model.share, dtype=torch.float64)


def measure(side: int, n_rounds: int) -> tuple[int, dict[str, float], dict[str, float]]:
    """Pairs, median iterations per second of each kind, and median ratio to the loops."""
    network = grid(side)
    capacity = torch.full((len(network.tail),), 0.5, dtype=torch.float64)
    (_, by_loop), (_, by_tensor) = loops(network, capacity, 5), tensors(network, capacity, "pair", 5)
    torch.testing.assert_close(by_loop, by_tensor, rtol=0, atol=1e-12)
    kinds = {
        "loops": lambda: loops(network, capacity, max(2, 2000 // len(network.origin))),
        "pair": lambda: tensors(network, capacity, "pair", 50),
        "origin": lambda: tensors(network, capacity, "origin", 50),
    }
    rounds = []
    for number in range(n_rounds):
        order = list(kinds)[:: 1 if number % 2 == 0 else -1]
        rounds.append({name: kinds[name]()[0] for name in order})
    rates = {name: 1 / statistics.median(seconds[name] for seconds in rounds) for name in kinds}
    ratios = {name: statistics.median(seconds["loops"] / seconds[name] for seconds in rounds) for name in kinds}
    return len(network.origin), rates, ratios


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail unless one flow per origin is 10 times as fast")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| pairs | loops, it/s | tensors, it/s | ratio | one flow per origin, it/s | ratio |")
    print("|---|---|---|---|---|---|")
    for side in (3, 4, 5, 6):
        n_pairs, rates, ratios = measure(side, args.rounds)
        cells = [f"{rates[name]:,.0f} | {ratios[name]:.1f}" for name in ("pair", "origin")]
        print(f"| {n_pairs} | {rates['loops']:,.0f} | {' | '.join(cells)} |", flush=True)
        if args.check and n_pairs == 600 and ratios["origin"] < 10:
            raise SystemExit(f"error: {ratios['origin']:.1f} times as fast as loops at 600 pairs, expected 10")


if __name__ == "__main__":
    main()
