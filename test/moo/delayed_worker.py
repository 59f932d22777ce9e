"""One of two processes that train with delayed weights; each has its half of a batch, or none of an objective."""

import os

import torch
from moo_kit import Tiny

from bilevel.moo.levels import Levels

LEVELS = [
    {"name": "supervised", "objectives": ["asr", "st"], "weighting": "modo", "weighting_conf": {"gamma": 0.5}},
    {"name": "self_supervised", "objectives": ["ssl"], "scale": [[0, 0.1], [10, 1.1]]},
]
SELECTED = {"threshold": 2.0, "max_share": 0.3, "every": 10, "granularity": "block", "delayed": True}
ALL = ("asr", "st", "ssl")
PRESENT = [  # by process, then by step
    [ALL, ALL, ("asr", "st"), ("asr",), ALL],
    [ALL, ALL, ("asr", "ssl"), ("ssl",), ()],
]


def process(rank: int, folder: str) -> None:
    """Train, and leave the gradients of each step in a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = Tiny()
    levels, found = Levels(model.shared(), model.head_params(), LEVELS, selection=SELECTED), []
    for step, here in enumerate(PRESENT[rank]):
        model.zero_grad()
        batches = {}
        for name, several in model.batches(2, step).items():
            alone = name not in PRESENT[1 - rank][step]
            part = slice(None) if alone else slice(2 * rank, 2 * rank + 2)
            if name in here:
                batches[name] = [x[part] for x in several[: levels.n_batches(name)]]
        levels.backward(model.losses(), batches, epoch=step)
        found.append(torch.cat([model.grad(), model.grad(shared=False)]))
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()
