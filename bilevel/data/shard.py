"""Audio inside tar shards: wav.scp entries `<shard>::<key>`, read in the shard's order and never unpacked.

The key of a member is its file name without folders and suffix. A compressed tar cannot be entered in its middle, so
a shard is read from its beginning to its end, and one member at a time is in memory.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

_ENTRY = re.compile(r"(.+\.(?:tar|tar\.gz|tgz))::([^/]+)", re.DOTALL)
_BLOCK_BYTES = 1 << 20
_MAX_MEMBER_BYTES = 4 << 30  # a day of 16-bit samples at 24 kHz


def entry(shard: Path, key: str) -> str:
    """The wav.scp entry of one member of a shard."""
    return f"{shard}::{key}"


def split(audio: str) -> tuple[str, str] | None:
    """Shard and key of an entry; None for other audio."""
    found = _ENTRY.fullmatch(audio)
    return (found[1], found[2]) if found else None


def file_of(audio: str) -> str:
    """The file on disk that holds the audio: the shard of an entry, else the path itself."""
    parts = split(audio)
    return parts[0] if parts else audio


def members(shard: str | Path, wanted: Container[str]) -> Iterator[tuple[str, bytes | None]]:
    """Key and content of every file in a tar, plain or compressed with gzip, in its order.

    Nothing is written: folders, links and devices are passed over, and a member's path serves for its key alone.

    Args:
        shard: The tar file.
        wanted: Keys whose content is read; it is asked at each member, so it may shrink. Others come with None.

    Raises:
        ValueError: The shard is not there, damaged or cut off, or a member is too large to be speech. What came before
            has been yielded; the end of a compressed shard is verified by its checksum.
    """
    try:
        with Path(shard).open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # read1: what lies before a break is handed over before the break is an error.
            stream = SimpleNamespace(read=gzip.GzipFile(fileobj=raw).read1 if packed else raw.read)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK_BYTES) as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile remembers every header: memory that grows with the shard
                    if member.isfile():
                        yield _content(tar, member, wanted)
            while stream.read(_BLOCK_BYTES):
                pass
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"damaged or truncated shard: {' '.join(str(error).split())}") from None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, wanted: Container[str]) -> tuple[str, bytes | None]:
    key = PurePosixPath(member.name).stem
    if key not in wanted:
        return key, None
    if member.size > _MAX_MEMBER_BYTES:
        raise tarfile.ReadError(f"member {member.name!r} has {member.size} bytes, at most {_MAX_MEMBER_BYTES} expected")
    content = tar.extractfile(member).read()
    if len(content) < member.size:
        raise tarfile.ReadError(f"member {member.name!r} ends after {len(content)} of {member.size} bytes")
    return key, content
