"""Reading and changing audio. The one place that opens sound files or runs `command |` entries."""

import io
import math
import re
import shlex
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

# What only a shell understands; a pipe of plain programs needs none of it.
_SHELL_ONLY = re.compile(r"[;&<>`\n]|\$\(|\$\{|\|\|")


def is_pipe(path: str) -> bool:
    """Whether a wav.scp entry is a command."""
    return path.rstrip().endswith("|")


def open_source(path: str | io.BytesIO, *, allow_pipes: bool = False) -> str | io.BytesIO:
    """What soundfile can open for a wav.scp entry: the path, or the output of the command; a file's content as it is.

    Commands run without a shell, program by program.

    Raises:
        ValueError: A command although none is allowed, one that needs a shell, or one that failed.
    """
    if isinstance(path, io.BytesIO):
        path.seek(0)
        return path
    if not is_pipe(path):
        return path
    if not allow_pipes:
        raise ValueError(f"{path!r}: a command instead of a file; convert to audio files or pass --allow_pipes")
    command = path.rstrip()[:-1]
    if _SHELL_ONLY.search(command):
        raise ValueError(f"{path!r}: needs a shell, which is never used here; convert to audio files")
    data: bytes | None = None
    for words in _programs(command):
        try:
            done = subprocess.run(words, input=data, stdin=None if data else subprocess.DEVNULL, capture_output=True)
        except OSError as error:
            raise ValueError(f"{path!r}: {words[0]} did not start: {error.strerror}; install it") from None
        if done.returncode:
            message = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ValueError(f"{path!r}: {words[0]} ended with code {done.returncode}: {' '.join(message)}")
        data = done.stdout
    return io.BytesIO(data or b"")


def _programs(command: str) -> list[list[str]]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    programs: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            programs.append([])
        else:
            programs[-1].append(word)
    if not all(programs):
        raise ValueError(f"{command!r}: a pipe with nothing in it")
    return programs


def read_audio(
    path: str | io.BytesIO,
    start_sec: float | None = None,
    end_sec: float | None = None,
    *,
    channel: int | None = None,
    allow_pipes: bool = False,
) -> tuple[np.ndarray, int]:
    """Samples (S,) float32 within [-1, 1], and the rate in Hz, of a file (or its content) or a part of it.

    Raises:
        ValueError: The file cannot be read (its name is in the message), or has several channels and none is chosen.
    """
    try:
        with soundfile.SoundFile(open_source(path, allow_pipes=allow_pipes)) as file:
            rate_hz = file.samplerate
            start = 0 if start_sec is None else round(start_sec * rate_hz)
            stop = file.frames if end_sec is None else min(round(end_sec * rate_hz), file.frames)
            file.seek(min(start, file.frames))
            samples = file.read(max(stop - start, 0), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}); repair or remove it") from None
    if channel is None and samples.shape[1] > 1:
        raise ValueError(f"{path}: {samples.shape[1]} channels, expected 1; choose one: --channel 0")
    if (channel or 0) >= samples.shape[1]:
        raise ValueError(f"{path}: channel {channel} asked for, but it has {samples.shape[1]}; count from 0")
    return np.ascontiguousarray(samples[:, channel or 0]), rate_hz


def length_sec(path: Path) -> float:
    """Length by the header, for times that may not lie beyond it; infinite for a file that the scan will refuse."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        return math.inf
    return info.frames / info.samplerate


def resample(samples: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Band-limited resampling of (S,) to (ceil(S * ratio),)."""
    if ratio == 1:
        return samples
    import torch
    import torchaudio.functional

    with torch.inference_mode():
        changed = torchaudio.functional.resample(torch.from_numpy(samples), ratio.denominator, ratio.numerator)
    return changed.numpy()


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast at the same rate: length / factor, pitch * factor (the `speed` effect of sox)."""
    return resample(samples, 1 / Fraction(factor).limit_denominator(1000))


def change_rate(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """The same sound at another sampling rate."""
    return resample(samples, Fraction(to_hz, from_hz))


def write_flac(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    """Write (S,) samples within [-1, 1] as 16-bit FLAC; louder ones are clipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    soundfile.write(path, whole, rate_hz, format="FLAC", subtype="PCM_16")
