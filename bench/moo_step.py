"""Cost of a step with weighed objectives against a step on their sum, and against the library torchjd.

    python bench/moo_step.py             # all ratios, two tables

Time: CPU time, one process, one thread, the two sides of a ratio in turn, the order reversed every round; the verdict
is the median of the per-round ratios, the brackets hold the least and the greatest. Three objectives on a small
conformer-like encoder, in a shared batch (one forward pass, the case in which a sum needs one backward pass) and in a
batch each (the case of several languages). A step is forward, backward and `.grad`; no optimizer. Rows with torchjd are
skipped without it (pip install "bilevel[moo]").

Memory: the most bytes of tensors that are alive at once in a step, a count that does not depend on the machine's load.
The profiler reports each allocation and release of PyTorch's CPU allocator; their running sum starts at what is there
before the step: parameters, batches, and the two moments of Adam, as in a training.

A selection that is refreshed every 100 steps has 99 steps between refreshes and one refresh, which are measured apart:
the mean of 100 steps is (99 a + b) / 100, and the greatest memory is that of the refresh.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from timing import ratios
from torch import Tensor, nn

from bilevel.moo.levels import Levels

DIM, N_BLOCKS, N_UTTS, N_FRAMES, VOCAB = 144, 8, 4, 200, 100
NAMES = ("asr", "st", "ssl")
EVERY = 100


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

    def weighed(self, shared: bool, n_chosen: int | None = None, delayed: bool = False) -> Callable[[], None]:
        """Ours with UPGrad; weights from the last `n_chosen` blocks, None: from all."""
        level = {"name": "all", "objectives": list(NAMES), "weighting": "upgrad"}
        selection = None if n_chosen is None else {"every": 10**9, "delayed": delayed}
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

    def refresh(self) -> Callable[[], None]:
        """A step that looks for the layers in conflict; a batch each."""
        level = {"name": "all", "objectives": list(NAMES), "weighting": "upgrad"}
        heads = {name: list(head.parameters()) for name, head in self.heads.items()}
        levels = Levels(dict(self.encoder.named_parameters()), heads, [level], selection={"every": 1})
        losses = {name: lambda feats, name=name: self.loss(name, self.encoder(feats)) for name in NAMES}

        def step() -> None:
            self.drop()
            levels.backward(losses, {name: [feats] for name, feats in self.feats.items()})

        return step

    def peak(self, step: Callable[[], None]) -> int:
        """The most bytes alive in a step."""
        step()
        self.drop()
        params = sum(p.nbytes for module in (self.encoder, self.heads) for p in module.parameters())
        batches = sum(x.nbytes for several in (self.feats, self.targets) for x in several.values())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            profile.export_chrome_trace(str(file))
            events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
        changes = sorted((e["ts"], i, e["args"]["Bytes"]) for i, e in enumerate(events) if e["name"] == "[memory]")
        alive = most = 3 * params + batches  # parameters and two moments
        for *_, n_bytes in changes:
            alive += n_bytes
            most = max(most, alive)
        return most

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


def timed(setup: Setup, n_rounds: int) -> list[str]:
    """Table of time."""
    table = ["| ratio of CPU time | median | range |", "|---|---|---|"]

    def put(name: str, found: list[float]) -> None:
        table.append(f"| {name} | {statistics.median(found):.3f} | {found[0]:.3f} - {found[-1]:.3f} |")
        print(table[-1], flush=True)

    quarter, alone = N_BLOCKS // 4, setup.summed(False)
    rows = [
        ("UPGrad / sum, shared batch", setup.weighed(True), setup.summed(True)),
        ("the same, weights from the last quarter of the blocks", setup.weighed(True, quarter), setup.summed(True)),
        ("UPGrad / sum, a batch each", setup.weighed(False), alone),
    ]
    if importlib.util.find_spec("torchjd") is None:
        print("torchjd is not installed: its comparisons are left out")
    else:
        rows.append(("UPGrad / torchjd's UPGrad, shared batch", setup.weighed(True), setup.torchjd(True)))
        rows.append(("UPGrad / torchjd's UPGrad, a batch each", setup.weighed(False), setup.torchjd(False)))
    for name, ours, other in rows:
        put(name, ratios(ours, other, n_rounds))
    refresh = ratios(setup.refresh(), alone, n_rounds)
    put("refresh / sum, a batch each", refresh)
    for name, n_chosen, delayed in selections():
        between = ratios(setup.weighed(False, n_chosen, delayed), alone, n_rounds)
        mean = [((EVERY - 1) * a + b) / EVERY for a, b in zip(between, refresh, strict=True)]
        put(f"selection, refreshed every {EVERY} steps, {name} / sum, a batch each", mean)
    return table


def selections() -> list[tuple[str, int, bool]]:
    """Name, chosen blocks, whether weights are those of the step before."""
    return [
        ("last quarter", N_BLOCKS // 4, False),
        ("last quarter, delayed", N_BLOCKS // 4, True),
        ("all but the first block, delayed", N_BLOCKS - 1, True),
        ("all blocks", N_BLOCKS, True),
    ]


def remembered(setup: Setup) -> list[str]:
    """Table of memory."""
    base = setup.peak(setup.summed(False))
    table = [f"| most bytes alive, a batch each; sum: {base / 2**20:.1f} MiB | ratio to the sum |", "|---|---|"]
    rows = [("UPGrad", setup.weighed(False)), ("refresh", setup.refresh())]
    rows += [(f"between refreshes, {name}", setup.weighed(False, n, delayed)) for name, n, delayed in selections()]
    for name, step in rows:
        table.append(f"| {name} | {setup.peak(step) / base:.3f} |")
        print(table[-1], flush=True)
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    setup = Setup()
    memory = remembered(setup)
    time = timed(setup, args.n_rounds)
    print("\n".join(["", *time, "", *memory]))


if __name__ == "__main__":
    main()
