"""One upper step of data hyper-cleaning with our solvers, with a loop written by hand, and with Betty.

    python bench/hyper_cleaning.py            # ratios of CPU time, peak memory, seconds to equal accuracy
    python bench/hyper_cleaning.py --check    # a missed bar is an error

1000 training samples, 40 % of them with a wrong label, each with a weight sigmoid(x_i) that the upper level learns from
clean validation samples; MLP 784-128-128-10, batch 100, one lower step for each upper step. The samples are a mixture
of Gaussians in 784 dimensions, so nothing is downloaded. Times are CPU seconds of one process with one thread, all
methods in turn, the order reversed every round; a ratio is the median over rounds. Betty joins where it is installed
(`pip install --no-deps --ignore-requires-python betty-ml==0.2.1`; its metadata excludes Python 3.11 and later).
"""

import argparse
import importlib.util
import math
import multiprocessing
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import Parameter

from bilevel.optim import build, hessian, vector

N_TRAIN, N_VALID, N_TEST, BATCH, NOISE = 1000, 1000, 2000, 100, 0.4
LR_UPPER, LR_LOWER, GAMMA = 50.0, 0.1, 10.0
OURS = {
    "value_function": {"gamma": GAMMA, "lr": LR_LOWER, "scale": 1 / GAMMA},
    "implicit identity, differences": {"linear_solver": "identity", "hvp": "finite_difference"},
    "implicit neumann-5, exact": {"linear_solver": "neumann", "n_terms": 5, "tolerance": 0.0},
    "implicit cg-5, exact": {"linear_solver": "cg", "n_terms": 5, "tolerance": 0.0, "damping": 1.0},
    "implicit cg-5, differences": {
        "linear_solver": "cg",
        "n_terms": 5,
        "tolerance": 0.0,
        "damping": 1.0,
        "hvp": "finite_difference",
    },
}


class Cleaning:
    """The problem: weights x of the training samples above, the classifier y below."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        centres = 0.12 * torch.randn(10, 784, generator=generator)

        def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
            labels = torch.randint(10, (n,), generator=generator)
            return centres[labels] + torch.randn(n, 784, generator=generator), labels

        (self.inputs, self.labels), self.valid, self.test = draw(N_TRAIN), draw(N_VALID), draw(N_TEST)
        self.wrong = torch.rand(N_TRAIN, generator=generator) < NOISE
        shifted = (self.labels + torch.randint(1, 10, (N_TRAIN,), generator=generator)) % 10
        self.labels = torch.where(self.wrong, shifted, self.labels)
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
        self.x = Parameter(torch.zeros(N_TRAIN))
        self.generator = generator

    def batches(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of a validation and of a training batch."""
        upper = torch.randint(N_VALID, (BATCH,), generator=self.generator)
        return upper, torch.randint(N_TRAIN, (BATCH,), generator=self.generator)

    def upper(self, index):
        """Cross entropy on clean samples."""
        return nn.functional.cross_entropy(self.net(self.valid[0][index]), self.valid[1][index])

    def lower(self, index):
        """Weighted cross entropy on noisy samples."""
        losses = nn.functional.cross_entropy(self.net(self.inputs[index]), self.labels[index], reduction="none")
        return (torch.sigmoid(self.x[index]) * losses).mean()

    def upper_params(self):
        """The weights."""
        return [self.x]

    def lower_params(self):
        """The classifier."""
        return list(self.net.parameters())

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the test samples."""
        return float((self.net(self.test[0]).argmax(-1) == self.test[1]).float().mean())


def by_solver(conf: dict, name: str):
    """A step with one of our solvers and two plain optimizers."""
    problem = Cleaning(0)
    solver = build(name, conf)
    # The penalised objective of y has its gradient divided by gamma (`scale`): the same step size serves all.
    lower = torch.optim.SGD(problem.lower_params(), lr=LR_LOWER)
    upper = torch.optim.SGD([problem.x], lr=LR_UPPER)

    def step() -> None:
        lower.zero_grad()
        upper.zero_grad()
        solver.backward(problem, *problem.batches())
        lower.step()
        upper.step()

    return problem, step


def by_hand():
    """The penalty step as one writes it without a library: three passes, two plain updates."""
    problem = Cleaning(0)
    y = problem.lower_params()
    z = [p.detach().clone() for p in y]
    names = [name for name, _ in problem.net.named_parameters()]

    def weighted(params, index):
        logits = torch.func.functional_call(problem.net, dict(zip(names, params, strict=True)), problem.inputs[index])
        losses = nn.functional.cross_entropy(logits, problem.labels[index], reduction="none")
        return (torch.sigmoid(problem.x[index]) * losses).mean()

    def step() -> None:
        upper, lower = problem.batches()
        free = [p.requires_grad_() for p in z]
        grad_x_z, *grad_z = torch.autograd.grad(weighted(free, lower), [problem.x, *free])
        grad_x_y, *grad_y = torch.autograd.grad(problem.lower(lower), [problem.x, *y])
        grad_f = torch.autograd.grad(problem.upper(upper), y)
        with torch.no_grad():
            problem.x -= LR_UPPER * (grad_x_y - grad_x_z)
            for i, p in enumerate(y):
                z[i] = z[i] - LR_LOWER * grad_z[i]
                p -= LR_LOWER * (grad_f[i] / GAMMA + grad_y[i])

    return problem, step


def by_betty(kind: str):
    """Betty's engine, one inner step for each outer one."""
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    problem = Cleaning(0)

    class Upper(ImplicitProblem):
        def training_step(self, batch):
            return nn.functional.cross_entropy(self.lower(batch[0]), batch[1])

    class Lower(ImplicitProblem):
        def training_step(self, batch):
            inputs, labels, index = batch
            losses = nn.functional.cross_entropy(self(inputs), labels, reduction="none")
            return (torch.sigmoid(self.upper.module.x[index]) * losses).mean()

    class Weights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = problem.x

    class Draw:
        def __init__(self, upper: bool) -> None:
            self.is_upper = upper

        def __iter__(self):
            while True:
                upper, lower = problem.batches()
                if self.is_upper:
                    yield problem.valid[0][upper], problem.valid[1][upper]
                else:
                    yield problem.inputs[lower], problem.labels[lower], lower

        def __len__(self) -> int:
            return 1 << 30

    weights = Weights()
    config = {"darts": {}, "neumann": {"neumann_iterations": 5, "neumann_alpha": 0.1}, "cg": {"cg_iterations": 5}}
    upper = Upper(
        name="upper",
        module=weights,
        optimizer=torch.optim.SGD([weights.x], lr=LR_UPPER),
        train_data_loader=Draw(True),
        config=Config(type="darts", log_step=1 << 30),
    )
    lower = Lower(
        name="lower",
        module=problem.net,
        optimizer=torch.optim.SGD(problem.net.parameters(), lr=LR_LOWER),
        train_data_loader=Draw(False),
        config=Config(type=kind, unroll_steps=1, **config[kind]),
    )
    engine = Engine(
        config=EngineConfig(train_iters=1 << 30, logger_type="none"),
        problems=[upper, lower],
        dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
    )
    engine.train()
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        engine.global_step = count
        engine.train_step()

    return problem, step


def methods() -> dict:
    """Name -> function that builds (problem, step)."""
    found = {"by hand": by_hand}
    for label, conf in OURS.items():
        found[label] = lambda conf=conf, label=label: by_solver(conf, label.split()[0])
    if importlib.util.find_spec("betty"):
        found |= {f"betty {kind}": lambda kind=kind: by_betty(kind) for kind in ("darts", "neumann", "cg")}
    return found


def time_steps(n_rounds: int, n_steps: int) -> dict[str, list[float]]:
    """CPU seconds of a step: one value for each method and round, rounds interleaved."""
    steps = {name: build_one()[1] for name, build_one in methods().items()}
    for step in steps.values():
        for _ in range(5):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(n_rounds):
        for name in sorted(steps, reverse=bool(number % 2)):
            start = time.process_time()
            for _ in range(n_steps):
                steps[name]()
            times[name].append((time.process_time() - start) / n_steps)
    return times


def to_accuracy(n_steps: int, goal: float) -> dict[str, tuple[float, float, float]]:
    """Per method: CPU seconds to the goal (nan if never), best accuracy, area under the curve of wrong labels found."""
    found = {}
    for name, build_one in methods().items():
        problem, step = build_one()
        seconds, reached, best = 0.0, math.nan, 0.0
        for number in range(1, n_steps + 1):
            start = time.process_time()
            step()
            seconds += time.process_time() - start
            if number % 20 == 0:
                best = max(best, problem.accuracy())
                if math.isnan(reached) and best >= goal:
                    reached = seconds
        order = problem.x.detach().argsort()
        hit = float(problem.wrong[order[: int(problem.wrong.sum())]].float().mean())
        found[name] = reached, best, hit
    return found


def hypergradient(problem: Cleaning, index, v: list, hvp: str) -> list:
    """The implicit term of DARTS, d/dx <d_y g, v>: two gradients by differences, or a double backward."""
    return hessian.curvature(hvp, lambda: problem.lower(index), [problem.x], problem.lower_params()).cross(v)


def finite_difference_cost(n_rounds: int) -> tuple[float, float, float]:
    """CPU time and peak memory of a hypergradient by differences over a gradient's, and its cosine to the exact one."""
    problem = Cleaning(0)
    y, index = problem.lower_params(), torch.arange(N_TRAIN)
    v = vector.grad(problem.upper(index), y)
    both = [problem.x, *y]
    product = hessian.finite_difference(lambda: problem.lower(index), [problem.x], y).cross
    ratios = []
    for _ in range(n_rounds):
        start = time.process_time()
        for _ in range(5):
            vector.grad(problem.lower(index), both)
        middle = time.process_time()
        for _ in range(5):
            product(v)
        ratios.append((time.process_time() - middle) / (middle - start))
    exact, differences = (hypergradient(problem, index, v, hvp)[0] for hvp in ("exact", "finite_difference"))
    context = multiprocessing.get_context("spawn")
    peaks = []
    for kind in ("nothing", "gradient", "hypergradient"):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(peak_mb, (kind,)))
    own = peaks[1] - peaks[0]
    memory = (peaks[2] - peaks[0]) / own if own > 0 else math.nan  # too small to show beside PyTorch itself
    return statistics.median(ratios), memory, float(torch.cosine_similarity(exact, differences, dim=0))


def peak_mb(kind: str) -> float:
    """Peak memory of a fresh process on a batch that dwarfs the weights."""
    torch.set_num_threads(1)
    problem = Cleaning(0)
    y, index = problem.lower_params(), torch.arange(N_TRAIN).repeat(60)
    v = [torch.ones_like(p) for p in y]
    if kind == "gradient":
        vector.grad(problem.lower(index), [problem.x, *y])
    if kind == "hypergradient":
        hypergradient(problem, index, v, "finite_difference")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=20, help="upper steps of a round")
    parser.add_argument("--train_steps", type=int, default=600, help="upper steps of the race to an accuracy")
    parser.add_argument("--goal", type=float, default=0.41, help="test accuracy of that race")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    times = time_steps(args.rounds, args.steps)
    race = to_accuracy(args.train_steps, args.goal)
    columns = ("ms/step", "x by hand", "range", "s to goal", "best acc.", "found")
    print(f"{'method':32}" + "".join(f"{name:>12}" for name in columns))
    ratios = {}
    for name, values in times.items():
        by_round = [v / h for v, h in zip(values, times["by hand"], strict=True)]
        ratios[name] = statistics.median(by_round)
        spread = f"{min(by_round):.2f}-{max(by_round):.2f}"
        reached, best, hit = race[name]
        ms = 1e3 * statistics.median(values)
        print(f"{name:32}{ms:12.2f}{ratios[name]:12.2f}{spread:>12}{reached:12.2f}{best:12.3f}{hit:12.3f}")
    passes, memory, cosine = finite_difference_cost(args.rounds)
    cost = f"{passes:.2f} gradient passes, {memory:.2f}x memory, cosine to exact {cosine:.6f}"
    print(f"hypergradient by differences: {cost}")
    bars = {
        "value_function <= 1.15 x by hand": ratios["value_function"] <= 1.15,
        "differences <= 2.3 passes": passes <= 2.3,
        "differences <= 1.45x memory": memory <= 1.45,
        "cosine >= 0.999": cosine >= 0.999,
    }
    for bar, met in bars.items():
        print(f"{'met' if met else 'MISSED'}: {bar}")
    if args.check and not all(bars.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
