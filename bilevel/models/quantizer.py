"""Random-projection quantizer: speech frames to discrete labels without learning anything."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilevel.models.output import at_least_float32


class RandomProjectionQuantizer(nn.Module):
    """Nearest code of a random projection.

        y = argmin_i || l2norm(c_i) - l2norm(A x) || = argmax_i <l2norm(c_i), A x>

    Both sides have unit length, so the nearest code is the one of largest cosine, and the length of A x does not
    matter: one matrix product and a maximum, in chunks of rows, never a (N, V, h) broadcast distance. Several codebooks
    have a projection each; all projections are one matrix product.

    Args:
        input_dim: Size of x.
        codebook_dim: h, size of a code.
        codebook_size: V, number of codes of a codebook.
        seed: Seed of projection and codebook; the same on every rank and after every restart.
        chunk_rows: Rows of x per (rows, V) product; None takes 64 on a CPU, where the scores then stay in its cache
            (twice as fast), and 4096 elsewhere.
        n_codebooks: n, number of independent labels of a frame.
        codebook: Codes (n V, h) of another quantizer, to be shared with it, instead of codes of this seed.

    References:
        BEST-RQ, arXiv 2202.01855, section 3.1.
    """

    def __init__(
        self,
        input_dim: int,
        codebook_dim: int = 16,
        codebook_size: int = 8192,
        seed: int = 0,
        chunk_rows: int | None = None,
        n_codebooks: int = 1,
        codebook: Tensor | None = None,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6.0 / (input_dim + codebook_dim)) ** 0.5  # Xavier uniform
        projection = (2 * torch.rand(input_dim, n_codebooks * codebook_dim, generator=generator) - 1) * bound
        if codebook is None:
            codes = torch.randn(n_codebooks * codebook_size, codebook_dim, generator=generator)
            codebook = functional.normalize(codes, dim=-1)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", codebook)
        self.chunk_rows = chunk_rows
        self.n_codebooks = n_codebooks

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Labels of x.

        Args:
            x: (..., input_dim), normalised to zero mean and unit variance; otherwise few codes are used.

        Returns:
            (...) int64 in [0, V), or (..., n) for several codebooks. Computed in float32 also under autocast, because
            rounding flips labels.
        """
        chunk_rows = self.chunk_rows or (64 if x.device.type == "cpu" else 4096)
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, x.size(-1)).float() @ self.projection.float()
            labels = torch.cat([self._nearest(chunk) for chunk in rows.split(chunk_rows)])
        return labels.view(x.shape[:-1] if self.n_codebooks == 1 else (*x.shape[:-1], self.n_codebooks))

    def _nearest(self, rows: Tensor) -> Tensor:
        """(N, n) codes of largest cosine with projected rows (N, n h)."""
        pairs = zip(rows.chunk(self.n_codebooks, dim=-1), self.codebook.float().chunk(self.n_codebooks), strict=True)
        # max, not argmax: the same index, found in half the time on a CPU.
        return torch.stack([(part @ codes.T).max(dim=-1).indices for part, codes in pairs], dim=-1)

    def scores(self, x: Tensor) -> Tensor:
        """Cosine <l2norm(c_i), l2norm(A x)> of x with every code; differentiable in x.

        || l2norm(c_i) - l2norm(A x) ||^2 = 2 - 2 cosine, so the softmax of negative squared distances is that of twice
        the cosines.

        Args:
            x: (..., input_dim).

        Returns:
            (..., V), or (..., n, V) for several codebooks; in float32 also under autocast.
        """
        with torch.autocast(x.device.type, enabled=False):
            x = at_least_float32(x)
            rows = (x @ self.projection.to(x)).unflatten(-1, (self.n_codebooks, -1))
            codes = self.codebook.to(x).unflatten(0, (self.n_codebooks, -1))
            cosines = torch.einsum("...nh,nvh->...nv", functional.normalize(rows, dim=-1), codes)
        return cosines.squeeze(-2) if self.n_codebooks == 1 else cosines
