"""Log-mel features with their derivatives, adjacent frames stacked."""

from typing import Any

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.stft import Stft
from torch import Tensor

from bilevel.models.masking import valid_mask


class DeviceStft(Stft):
    """ESPnet's, with the padding masked where the spectrum is: ESPnet's takes the lengths to the host for that."""

    def forward(self, input: Tensor, ilens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As `Stft.forward`."""
        output, _ = super().forward(input)
        if ilens is None:
            return output, None
        n_around = 2 * (self.n_fft // 2) if self.center else 0
        lens = torch.div(ilens + n_around - self.n_fft, self.hop_length, rounding_mode="trunc") + 1
        padding = ~valid_mask(lens, output.size(1)).to(output.device)
        return output.masked_fill_(padding[(...,) + (None,) * (output.dim() - 2)], 0.0), lens


class DeltaStackFrontend(AbsFrontend):
    """ESPnet's log-mel features, their first and second differences over time, `stack` frames in a row.

    40 mel bins at 10 ms become 2 x 3 x 40 = 240 values at 20 ms; with encoder_conf `input_layer: linear` and ssl_conf
    `stack: 1` encoder states, labels and masks are on that grid. Differences are

        d_t = sum_n n (x_{t+n} - x_{t-n}) / (2 sum_n n^2),   n = 1..delta_frames,

    an utterance's first and last frame standing for those outside, and second differences are those of the first ones.
    A last group that is not full is dropped.

    Args:
        stack: Frames in a row.
        delta_frames: Reach of the differences.
        n_mels: Mel bins.
        kwargs: `DefaultFrontend`'s arguments.

    Raises:
        ValueError: stack or delta_frames below 1.

    References:
        Input of PTLOC, arXiv 2508.19990, section 4.1; probably of BiRQ, arXiv 2509.15430, too.
    """

    def __init__(self, stack: int = 2, delta_frames: int = 2, n_mels: int = 40, **kwargs: Any) -> None:
        super().__init__()
        if stack < 1 or delta_frames < 1:
            raise ValueError(f"frontend_conf stack {stack}, delta_frames {delta_frames}: expected 1 or more")
        self.logmel = DefaultFrontend(n_mels=n_mels, **kwargs)
        self.stack, self.delta_frames = stack, delta_frames
        self.hop_length = self.logmel.hop_length * stack

    def output_size(self) -> int:
        """Size of a stacked frame."""
        return 3 * self.stack * self.logmel.output_size()

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (B, S) to features (B, T // stack, 3 stack n_mels), frame by frame: static, first, second."""
        static, lens = self.logmel(input, input_lengths)
        first = differences(static, lens, self.delta_frames)
        feats = torch.cat([static, first, differences(first, lens, self.delta_frames)], dim=-1)
        n_stacked = feats.size(1) // self.stack
        stacked = feats[:, : n_stacked * self.stack].reshape(len(feats), n_stacked, self.output_size())
        stacked_lens = lens // self.stack
        place = torch.arange(n_stacked, device=feats.device)
        valid = place < stacked_lens.to(feats.device).unsqueeze(1)
        return stacked.masked_fill(~valid.unsqueeze(-1), 0.0), stacked_lens


def differences(x: Tensor, lens: Tensor, reach: int) -> Tensor:
    """Slope of the regression line over 2 reach + 1 frames of (B, T, F); edges as in `DeltaStackFrontend`."""
    place = torch.arange(x.size(1), device=x.device)
    last = (lens.to(x.device) - 1).clamp(min=0).view(-1, 1)

    def at(offset: int) -> Tensor:
        index = (place + offset).clamp(min=0).minimum(last)
        return x.gather(1, index.unsqueeze(-1).expand_as(x))

    total = sum(n * (at(n) - at(-n)) for n in range(1, reach + 1))
    return total / (2 * sum(n * n for n in range(1, reach + 1)))
