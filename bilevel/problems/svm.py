"""Hyper-parameter selection of a support vector machine: one soft-margin cap for each training sample."""

import itertools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter

from bilevel.data.fetch import fetch
from bilevel.problems.qp import QuadraticProgram

N_TRAIN, N_VALID = 500, 150
# Both are LIBSVM's scaled files, as the released code of arXiv 2406.10148 has them: name there, degree, sha256.
HOME = "https://raw.githubusercontent.com/Liuyuan999/Penalty_Based_Lagrangian_Bilevel/9e565c3/hyperparam_opt/datasets/"
DATASETS = {
    "diabetes": ("diabete.txt", 2, "e4c45e3a45cfce99fbc897edb76b0c74fbece588b953f5c3b1297bf28c52d6b0"),
    "fourclass": ("fourclass.txt", 1, "6f5a73e857c0f4af2ca06e81d48c1be91fa566fbafaeaf6eb6c355f29fef4618"),
}
TIE = 1e-6  # scores nearer to 0 than this are no decision: solvers leave about 1e-8 where the exact score is 0


def load(src: Path, name: str, download: bool = False) -> tuple[Tensor, Tensor]:
    """Features, expanded as in the paper (45 for diabetes, 2 for fourclass), and labels of SRC/NAME.libsvm.

    Raises:
        ValueError: Unknown name, or a file of another form.
        OSError: No such file.
    """
    if name not in DATASETS:
        raise ValueError(f"data set {name!r}: expected one of {', '.join(DATASETS)}")
    there, degree, checksum = DATASETS[name]
    path = Path(src) / f"{name}.libsvm"
    if download and not path.exists():
        fetch(HOME + there, path, f"sha256:{checksum}")
    features, labels = read_libsvm(path)
    return (expand(features) if degree == 2 else features), labels


def read_libsvm(path: Path) -> tuple[Tensor, Tensor]:
    """Read lines of `label index:value ...` (indices from 1, absent ones are 0).

    Returns:
        Features (N, D) and labels (N,), -1 or +1, both float64.

    Raises:
        ValueError: A line is of another form; the message names it.
    """
    labels, rows = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            label, *fields = line.split()
            row = {int(index): float(value) for index, value in (field.split(":") for field in fields)}
            labels.append({-1.0: -1.0, 1.0: 1.0}[float(label)])
        except (ValueError, KeyError):
            raise ValueError(f"{path}:{number}: found {line[:60]!r}, expected -1 or +1, then index:value ...") from None
        rows.append(row)
    if not rows or not any(rows):
        raise ValueError(f"{path}: no samples; expected a file in LIBSVM's format")
    features = torch.zeros(len(rows), max(max(row, default=0) for row in rows), dtype=torch.float64)
    for i, row in enumerate(rows):
        for index, value in row.items():
            features[i, index - 1] = value
    return features, torch.tensor(labels, dtype=torch.float64)


def expand(features: Tensor) -> Tensor:
    """Monomials of degree at most two, 1, x, x^2 and the products of pairs: (N, D) to (N, 1 + 2 D + D (D-1) / 2)."""
    pairs = [features[:, i] * features[:, j] for i, j in itertools.combinations(range(features.shape[1]), 2)]
    return torch.cat(
        [torch.ones(len(features), 1, dtype=features.dtype), features, features.square(), *_columns(pairs)], 1
    )


def _columns(vectors: list[Tensor]) -> list[Tensor]:
    return [torch.stack(vectors, 1)] if vectors else []


class Svm:
    r"""Caps c: (n,) of the margin violations, chosen by the loss on other samples.

        min_c  sum_{(z,l) in valid} exp(1 - l (w'z + b)) + R(c)
        s.t.   (w, b) in argmin { 1/2 |w|^2 + r/2 b^2 :  1 - c_i - l_i (w'z_i + b) <= 0, i = 1..n }

    x = c with c >= `floor`; y = (w, b): (D + 1,). Slack variables xi_i <= c_i of the usual form are eliminated. The
    caps enter only the constraints, d_c (constraints) = -I, so the hypergradient passes through multipliers alone.

    Two facts to know. If every cap is at least 1, y = 0 is feasible, hence the lower solution: nothing is learnt until
    caps fall below 1. And small caps on samples that no plane separates leave nothing feasible; `loose` finds caps that
    are feasible by construction.

    Args:
        features: (N, D), ready for the linear machine (see `expand`).
        labels: (N,) of -1 and +1.
        seed: Of the split, and of the first caps, drawn from U(caps).
        caps: Ends of the interval of the first caps.
        ridge_b: r; above 0, so that the lower level is strongly convex.
        regulariser: R: "norm" |c|, "half_square" 1/2 |c|^2, or "none".
        weight: Of R.
        compat_gamma: The released code halves the lower loss in the penalised problem; this penalty weight, if not 0,
            repeats that (`upper` then contains -1/2 `compat_gamma` g). Metrics are not touched.
        n_train: Samples of the lower level.
        n_valid: Samples of the upper level; the rest is the test set.

    References:
        Jiang et al., arXiv 2406.10148, section 4.2 and the released code's settings; R of that code is |c|, of its
        authors' later one 1/2 |c|^2.
    Deviations:
        Every seed shuffles all samples anew, where the released notebook shuffles the last shuffle.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        seed: int = 0,
        caps: tuple[float, float] = (1.0, 5.0),
        ridge_b: float = 1.0,
        regulariser: str = "norm",
        weight: float = 1.0,
        compat_gamma: float = 0.0,
        n_train: int = N_TRAIN,
        n_valid: int = N_VALID,
    ) -> None:
        if regulariser not in ("norm", "half_square", "none"):
            raise ValueError(f"regulariser {regulariser!r}: expected norm, half_square or none")
        if len(labels) <= n_train + n_valid:
            raise ValueError(f"{len(labels)} samples: expected more than {n_train} + {n_valid}, the rest is for tests")
        if ridge_b <= 0:
            raise ValueError(f"ridge_b {ridge_b}: expected a value above 0")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(labels), generator=generator)
        self.parts = dict(
            zip(("train", "valid", "test"), order.tensor_split([n_train, n_train + n_valid]), strict=True)
        )
        signed = torch.cat([features, torch.ones_like(features[:, :1])], 1) * labels[:, None]
        # Rows l (z, 1): a product with (w, b) is the margin of a sample.
        self.train, self.valid, self.test = (signed[index] for index in self.parts.values())
        drawn = torch.rand(n_train, generator=generator, dtype=features.dtype)
        self.c = Parameter(caps[0] + (caps[1] - caps[0]) * drawn)
        start = torch.zeros(features.shape[1] + 1, dtype=features.dtype)
        start[-1] = 1.0  # the released code's bias
        self.y = Parameter(start)
        self._weights = torch.ones_like(start)
        self._weights[-1] = ridge_b
        self.ridge_b, self.regulariser, self.weight = ridge_b, regulariser, weight
        self.compat_gamma, self.floor = compat_gamma, 1e-4
        self._program: QuadraticProgram | None = None

    def upper(self, batch: object = ()) -> Tensor:
        """The loss f: sum over the validation samples, and R(c)."""
        f = torch.exp(1 - self.valid @ self.y).sum()
        if self.regulariser == "norm":
            f = f + self.weight * torch.linalg.vector_norm(self.c)
        elif self.regulariser == "half_square":
            f = f + 0.5 * self.weight * self.c.square().sum()
        return f - 0.5 * self.compat_gamma * self.lower() if self.compat_gamma else f

    def lower(self, batch: object = ()) -> Tensor:
        """The loss g."""
        return 0.5 * (self._weights * self.y) @ self.y

    def constraints(self, batch: object = ()) -> tuple[Tensor, Tensor]:
        """Inequalities (n,); no equations."""
        return 1 - self.c - self.train @ self.y, self.c.new_zeros(0)

    def upper_params(self) -> list[Parameter]:
        """The caps."""
        return [self.c]

    def lower_params(self) -> list[Parameter]:
        """Weights and bias, as one vector."""
        return [self.y]

    def project_lower(self) -> None:
        """Y is the whole space."""

    def project_upper(self) -> None:
        """Caps stay above a floor."""
        with torch.no_grad():
            self.c.clamp_(min=self.floor)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Least and largest values of (c, y), flattened."""
        n, n_all = len(self.c), len(self.c) + len(self.y)
        low = self.c.new_full((n_all,), -torch.inf)
        low[:n] = self.floor
        return low, self.c.new_full((n_all,), torch.inf)

    def respond(self) -> list[Tensor]:
        """The lower solution at the present caps, by an exact solver.

        Raises:
            bilevel.problems.qp.Infeasible: The caps leave no machine.
        """
        if self._program is None:
            self._program = QuadraticProgram(self._weights.diag(), self.train[:0], -self.train)
        zeros = self.c.new_zeros(len(self.y))
        return [self._program.solve(zeros, zeros[:0], self.c.detach() - 1)]

    def loose(self, y: list[Tensor]) -> Tensor:
        """The smallest caps that y keeps: (n,)."""
        return (1 - self.train @ y[0].detach()).clamp(min=self.floor)

    def evaluate(self, y: list[Tensor]) -> dict[str, float]:
        """Accuracy on the test samples (no decision counts half), mean validation loss, largest violated constraint."""
        weights = y[0].detach()
        margins = self.test @ weights
        right = (margins > TIE).double() + 0.5 * (margins.abs() <= TIE).double()
        broken = 1 - self.c.detach() - self.train @ weights
        return {
            "accuracy": float(right.mean()),
            "val_loss": float(torch.exp(1 - self.valid @ weights).mean()),
            "violation": float(broken.clamp(min=0).max()),
        }
