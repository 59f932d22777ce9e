import pytest
import torch
from torch import nn


class PieceEncoder(nn.Module):
    """A tiny encoder that sees its whole utterance, ignores padding and subsamples by `stack`; partial ends drop."""

    def __init__(self, feat_dim: int, dim: int, stack: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feat_dim * stack, dim, dtype=torch.float64)
        self.stack = stack

    def forward(self, feats, lens):
        n_states = feats.size(1) // self.stack
        groups = feats[:, : n_states * self.stack].reshape(len(feats), n_states, -1)
        state_lens = lens // self.stack
        valid = (torch.arange(n_states) < state_lens.unsqueeze(1)).unsqueeze(-1)
        states = self.linear(groups.to(self.linear.weight.dtype)) * valid
        mean = states.sum(1, keepdim=True) / state_lens.clamp(min=1).view(-1, 1, 1)
        return (states + mean).tanh() * valid, state_lens


class Block(nn.Module):
    """States that see the mean of their utterance."""

    def __init__(self, dim: int, p_dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, dtype=torch.float64)
        self.dropout = nn.Dropout(p_dropout)

    def forward(self, x, valid):
        mean = (x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
        return x + self.dropout(self.linear(x + mean).tanh())


class BlockEncoder(nn.Module):
    """An encoder of blocks, as an objective sees it: `bilevel.models.output.Encode`."""

    def __init__(self, feat_dim: int, dim: int, stack: int, n_blocks: int, p_dropout: float) -> None:
        super().__init__()
        self.embed = PieceEncoder(feat_dim, dim, stack)
        self.blocks = nn.ModuleList(Block(dim, p_dropout) for _ in range(n_blocks))
        self.after_norm = nn.LayerNorm(dim, dtype=torch.float64)
        self.calls = []

    def forward(self, feats, lens, n_layers=None, dropout=True):
        self.calls.append((feats.detach().clone(), n_layers, torch.is_grad_enabled()))
        was = self.training
        self.train(was and dropout)
        x, state_lens = self.embed(feats, lens)
        valid = (torch.arange(x.size(1)) < state_lens.unsqueeze(1)).unsqueeze(-1)
        for block in self.blocks[:n_layers]:
            x = block(x, valid)
        self.train(was)
        return (self.after_norm(x) if n_layers is None else x), state_lens


@pytest.fixture
def make_encoder():
    def make(feat_dim=4, dim=3, stack=1):
        torch.manual_seed(0)
        return PieceEncoder(feat_dim, dim, stack)

    return make


@pytest.fixture
def make_blocks():
    def make(feat_dim=4, dim=3, stack=4, n_blocks=3, p_dropout=0.0):
        torch.manual_seed(0)
        return BlockEncoder(feat_dim, dim, stack, n_blocks, p_dropout)

    return make
