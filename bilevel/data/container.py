"""Whether an audio file holds as many bytes as its own headers promise.

libsndfile reads a truncated WAV or Ogg without complaint, so the promise has to be checked on the bytes.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Writers that cannot seek back (pipes) leave sizes such as 0x7ffff000 or 0xffffffff: not a promise.
_UNKNOWN_SIZE = 0x7FFF0000
_LAST_PAGE = 0x04


class Missing(NamedTuple):
    """What a file lacks: in words, and as a share of what its headers promise (1 where they keep no size)."""

    text: str
    share: float


def truncation(source: Path | BinaryIO) -> Missing | None:
    """What is missing from a RIFF, NIST SPHERE or Ogg file; None if nothing, or if the format keeps no sizes."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return truncation(stream)
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(1024)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        promised = _riff_size(source, size)
    elif head[:7] == b"NIST_1A":
        promised = _sphere_size(head)
    elif head[:4] == b"OggS":
        source.seek(max(0, size - (1 << 17)))  # a page is shorter than 65,308 bytes
        return None if _ogg_ends(source.read()) else Missing("the last Ogg page is missing", 1.0)
    else:
        return None
    if promised <= size:
        return None
    return Missing(f"{size} bytes, but its header promises {promised}", 1 - size / promised)


def _riff_size(stream, size: int) -> int:
    """End of the data chunk or of the whole RIFF chunk, whichever is later."""
    stream.seek(4)
    riff = struct.unpack("<I", stream.read(4))[0]
    promised = riff + 8 if riff < _UNKNOWN_SIZE else 0
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            return max(promised, position + 8 + length) if length < _UNKNOWN_SIZE else promised
        position += 8 + length + length % 2
    return max(promised, position)


def _sphere_size(head: bytes) -> int:
    """Header and samples together, for plain PCM; 0 for compressed samples."""
    fields = {}
    for line in head.split(b"\n")[2:]:
        words = line.split(maxsplit=2)
        if len(words) == 3:
            fields[words[0]] = words[2]
    if fields.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"alaw"):
        return 0
    counts = [fields.get(name, b"0") for name in (b"sample_count", b"sample_n_bytes", b"channel_count")]
    if not all(count.isdigit() for count in counts):
        return 0
    n_samples, n_bytes, n_channels = map(int, counts)
    return int(head.split(b"\n")[1]) + n_samples * n_bytes * max(n_channels, 1)


def _ogg_ends(tail: bytes) -> bool:
    """Whether the last page is complete and marked as the last one."""
    at = tail.rfind(b"OggS")
    page = tail[at:]
    if at < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & _LAST_PAGE) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
