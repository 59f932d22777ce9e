"""Cost of a step with weighed objectives against a step on their sum, and against the library torchjd.

    python bench/moo_step.py             # all ratios, one table

CPU time, one process, one thread, the two sides of a ratio in turn, the order reversed every round; the verdict is the
median of the per-round ratios, the brackets hold the least and the greatest. Three objectives on a small conformer-like
encoder, in a shared batch (one forward pass, the case in which a sum needs one backward pass) and in a batch each (the
case of several languages). A step is forward, backward and `.grad`; no optimizer. Rows with torchjd are skipped without
it (pip install "bilevel[moo]").
"""

import argparse
import importlib.util
import statistics
from collections.abc import Callable

import torch
from timing import ratios
from torch import Tensor, nn

from bilevel.moo.levels import Levels

DIM, N_BLOCKS, N_UTTS, N_FRAMES, VOCAB = 144, 8, 4, 200, 100
NAMES = ("asr", "st", "ssl")


class Block(nn.Module):
    """Half a feed-forward layer, self-attention, depthwise convolution, the other half; layer norms throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(4))
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.SiLU(), nn.Linear(4 * DIM, DIM)) for _ in range(2)
        )
        self.attention = nn.MultiheadAttention(DIM, 4, batch_first=True)
        self.widen, self.narrow = nn.Linear(DIM, 2 * DIM), nn.Linear(DIM, DIM)
        self.depthwise = nn.Conv1d(DIM, DIM, 15, padding=7, groups=DIM)

    def forward(self, x: Tensor) -> Tensor:
        """States (B, T, D) to states (B, T, D)."""
        x = x + 0.5 * self.feed_forwards[0](self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = nn.functional.glu(self.widen(self.norms[2](x)))
        x = x + self.narrow(nn.functional.silu(self.depthwise(y.transpose(1, 2)).transpose(1, 2)))
        return x + 0.5 * self.feed_forwards[1](self.norms[3](x))


class Setup:
    """One encoder, three heads with cross-entropy for each frame, and steps on them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(*[Block() for _ in range(N_BLOCKS)])
        self.heads = nn.ModuleDict({name: nn.Linear(DIM, VOCAB) for name in NAMES})
        self.feats = {name: torch.randn(N_UTTS, N_FRAMES, DIM) for name in NAMES}
        self.targets = {name: torch.randint(VOCAB, (N_UTTS * N_FRAMES,)) for name in NAMES}

    def loss(self, name: str, hidden: Tensor) -> Tensor:
        """One objective on states (B, T, D)."""
        return nn.functional.cross_entropy(self.heads[name](hidden).flatten(0, 1), self.targets[name])

    def drop(self) -> None:
        """No gradients."""
        self.encoder.zero_grad()
        self.heads.zero_grad()

    def summed(self, shared: bool) -> Callable[[], None]:
        """Plain training on the sum."""

        def step() -> None:
            self.drop()
            if shared:
                hidden = self.encoder(self.feats["asr"])
                torch.stack([self.loss(name, hidden) for name in NAMES]).sum().backward()
                return
            for name in NAMES:
                self.loss(name, self.encoder(self.feats[name])).backward()

        return step

    def weighed(self, shared: bool, n_chosen: int | None = None) -> Callable[[], None]:
        """Ours with UPGrad; weights from the last `n_chosen` blocks, None: from all."""
        level = {"name": "all", "objectives": list(NAMES), "weighting": "upgrad"}
        selection = None if n_chosen is None else {"every": 10**9}
        heads = {name: list(head.parameters()) for name, head in self.heads.items()}
        levels = Levels(dict(self.encoder.named_parameters()), heads, [level], selection=selection)
        if levels.selection is not None:
            names = tuple(f"{i}." for i in range(N_BLOCKS - n_chosen, N_BLOCKS))
            chosen = [name for name in levels.collector.names if name.startswith(names)]
            levels.selection.load_state_dict({"n_steps": 1, "chosen": chosen})  # as after a detection

        def step() -> None:
            self.drop()
            levels.start()
            hidden = self.encoder(self.feats["asr"]) if shared else None
            for name in NAMES:
                states = self.encoder(self.feats[name]) if hidden is None else hidden
                levels.add(name, self.loss(name, states), retain_graph=shared and name != NAMES[-1])
            levels.finish()

        return step

    def torchjd(self, shared: bool) -> Callable[[], None]:
        """The library's own way, one objective at a time as ours."""
        from torchjd import aggregation, autojac

        params, aggregator = list(self.encoder.parameters()), aggregation.UPGrad()

        def step() -> None:
            self.drop()
            if shared:
                hidden = self.encoder(self.feats["asr"])
                losses = [self.loss(name, hidden) for name in NAMES]
                autojac.mtl_backward(losses, features=hidden, parallel_chunk_size=1)
            else:
                losses = [self.loss(name, self.encoder(self.feats[name])) for name in NAMES]
                autojac.backward(losses, inputs=params, parallel_chunk_size=1)
            autojac.jac_to_grad(params, aggregator)

        return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup = Setup()
    rows = [
        ("UPGrad / sum, shared batch", setup.weighed(True), setup.summed(True)),
        (
            "the same, weights from the last quarter of the blocks",
            setup.weighed(True, N_BLOCKS // 4),
            setup.summed(True),
        ),
        ("UPGrad / sum, a batch each", setup.weighed(False), setup.summed(False)),
    ]
    if importlib.util.find_spec("torchjd") is None:
        print("torchjd is not installed: its comparisons are left out")
    else:
        rows.append(("UPGrad / torchjd's UPGrad, shared batch", setup.weighed(True), setup.torchjd(True)))
        rows.append(("UPGrad / torchjd's UPGrad, a batch each", setup.weighed(False), setup.torchjd(False)))
    table = ["| ratio of CPU time | median | range |", "|---|---|---|"]
    for name, ours, other in rows:
        found = ratios(ours, other, args.n_rounds)
        table.append(f"| {name} | {statistics.median(found):.3f} | {found[0]:.3f} - {found[-1]:.3f} |")
        print(table[-1], flush=True)
    print("\n".join(["", *table]))


if __name__ == "__main__":
    main()
