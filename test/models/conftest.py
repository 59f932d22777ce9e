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


@pytest.fixture
def make_encoder():
    def make(feat_dim=4, dim=3, stack=1):
        torch.manual_seed(0)
        return PieceEncoder(feat_dim, dim, stack)

    return make
