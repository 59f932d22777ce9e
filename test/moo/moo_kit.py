"""A small model with a shared encoder and one head for each objective; counts its passes."""

import os

import torch
from torch import nn

from bilevel.moo.collector import Collector


class Tiny(nn.Module):
    """Three shared blocks and heads; `loss(name, x)` is a forward pass of the encoder and of one head."""

    def __init__(self, objectives=("asr", "st", "ssl"), dtype=torch.float64, width=5):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3)).to(dtype)
        self.unused = nn.Linear(2, 2).to(dtype)  # shared, but no loss depends on it
        self.heads = nn.ModuleDict({name: nn.Linear(width, 3) for name in objectives}).to(dtype)
        self.n_forward = self.n_backward = 0

    def encode(self, x):
        self.n_forward += 1
        for block in self.blocks[:-1]:
            x = torch.tanh(block(x))
        if x.requires_grad:
            x.register_hook(self._count)  # between the last block and the ones before
        return torch.tanh(self.blocks[-1](x))

    def _count(self, grad):
        self.n_backward += 1

    def decode(self, name, hidden):
        return (self.heads[name](hidden) - torch.arange(3, dtype=hidden.dtype)).square().mean() + 1.0

    def loss(self, name, x):
        return self.decode(name, self.encode(x))

    def losses(self):
        return {name: lambda x, name=name: self.loss(name, x) for name in self.heads}

    def shared(self):
        return {n: p for n, p in self.named_parameters() if not n.startswith("heads.")}

    def head_params(self):
        return {name: list(head.parameters()) for name, head in self.heads.items()}

    def batches(self, n=1, seed=0):
        generator = torch.Generator().manual_seed(seed)
        kind = self.blocks[0].weight.dtype
        return {name: [torch.randn(4, 5, generator=generator).to(kind) for _ in range(n)] for name in self.heads}

    def gradient(self, name, *xs):
        """Mean over batches of the gradient by the shared parameters and by the head, with plain autograd."""
        params = [*self.shared().values(), *self.head_params()[name]]
        loss = sum(self.loss(name, x) for x in xs) / len(xs)
        found = torch.autograd.grad(loss, params, allow_unused=True)
        n_shared = len(self.shared())
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]
        return filled[:n_shared], filled[n_shared:]

    def jacobian(self, batches):
        """(M, P) of the shared parameters."""
        return torch.stack([torch.cat([g.reshape(-1) for g in self.gradient(n, *b)[0]]) for n, b in batches.items()])

    def grad(self, shared=True):
        params = self.shared().values() if shared else [p for ps in self.head_params().values() for p in ps]
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in params])


def fill(model, collector, batches, **options):
    for name, several in batches.items():
        for i, x in enumerate(several):
            collector.add(name, model.loss(name, x), i, **options)
    collector.reduce({m: len(b) for m, b in enumerate(batches.values())})
    return collector


def new(model):
    return Collector(model.shared(), model.head_params())


def process(rank, folder):
    """One of two, with half of each batch; the second has no data of `ssl`, and in the last case none at all."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for case, chosen in (("all", None), ("chosen", [4, 5]), ("alone", None)):
        model = Tiny()
        model.zero_grad()
        collector = new(model)
        if chosen:
            collector.choose(chosen)
        for name, (x,) in model.batches().items():
            if rank == 1 and (name == "ssl" or case == "alone"):
                continue
            part = x if name == "ssl" or case == "alone" else x[2 * rank : 2 * rank + 2]
            collector.add(name, model.loss(name, part), scale_loss=lambda loss: 8 * loss)
        collector.reduce()
        gramian = collector.gramians()
        collector.combine(torch.tensor([0.2, 0.3, 0.5]))
        found[case] = [gramian, model.grad(), model.grad(shared=False)]
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()
