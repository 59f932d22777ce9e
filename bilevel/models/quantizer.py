"""Random-projection quantizer: speech frames to discrete labels without learning anything."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class RandomProjectionQuantizer(nn.Module):
    """Nearest code of a random projection.

        y = argmin_i || l2norm(c_i) - l2norm(A x) || = argmax_i <l2norm(c_i), A x>

    Both sides have unit length, so the nearest code is the one of largest cosine, and the length of A x does not
    matter: one matrix product and an argmax, in chunks of rows, never a (N, V, h) broadcast distance.

    Args:
        input_dim: Size of x.
        codebook_dim: h, size of a code.
        codebook_size: V, number of codes.
        seed: Seed of projection and codebook; the same on every rank and after every restart.
        chunk_rows: Rows of x per matrix product; bounds the (rows, V) scratch memory.

    References:
        BEST-RQ, arXiv 2202.01855, section 3.1.
    """

    def __init__(
        self, input_dim: int, codebook_dim: int = 16, codebook_size: int = 8192, seed: int = 0, chunk_rows: int = 1024
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bound = (6.0 / (input_dim + codebook_dim)) ** 0.5  # Xavier uniform
        projection = (2 * torch.rand(input_dim, codebook_dim, generator=generator) - 1) * bound
        codebook = functional.normalize(torch.randn(codebook_size, codebook_dim, generator=generator), dim=-1)
        self.register_buffer("projection", projection)
        self.register_buffer("codebook", codebook)
        self.chunk_rows = chunk_rows

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Labels of x.

        Args:
            x: (..., input_dim), normalised to zero mean and unit variance; otherwise few codes are used.

        Returns:
            (...) int64 in [0, V). Computed in float32 also under autocast, because rounding flips labels.
        """
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, x.size(-1)).float() @ self.projection.float()
            labels = [(chunk @ self.codebook.float().T).argmax(dim=-1) for chunk in rows.split(self.chunk_rows)]
        return torch.cat(labels).view(x.shape[:-1])
