"""Downloads that resume, verified before anything is unpacked; archives that cannot write outside their folder."""

import gzip
import hashlib
import http.client
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from bilevel.data.files import write_text

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SEC = 60


def digest(path: Path, algorithm: str) -> str:
    """Hex digest of a file, `algorithm` being sha256 or md5."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def verify(path: Path, checksum: str) -> None:
    """Compare a file with `sha256:<hex>`, `md5:<hex>` or `git:<hex>` (the name that git gives to its content).

    Raises:
        ValueError: Another digest, or an unknown kind of checksum.
    """
    algorithm, _, wanted = checksum.partition(":")
    if algorithm not in ("sha256", "md5", "git"):
        raise ValueError(f"checksum {checksum!r}: expected sha256:<hex> or md5:<hex>, or git:<hex>")
    found = _git_name(path) if algorithm == "git" else digest(path, algorithm)
    if found != wanted.lower():
        raise ValueError(
            f"{path}: {algorithm} is {found}, expected {wanted}; nothing was unpacked: delete it, try again"
        )


def _git_name(path: Path) -> str:
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def fetch(url: str, path: Path, checksum: str) -> Path:
    """Download a file and verify it; what an interrupted call left in `<path>.part` is continued.

    A file that is already there and verifies is not fetched again. A finished download with the wrong checksum is
    removed, so that the next call starts anew.

    Args:
        url: http, https or file address.
        path: Where the file goes.
        checksum: As `verify` takes it.

    Raises:
        ValueError: The checksum is wrong.
        OSError: The server cannot be reached or refuses, or the connection broke; call again to continue.
    """
    path = Path(path)
    if path.is_file():
        verify(path, checksum)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    download(url, part)
    try:
        verify(part, checksum)
    except ValueError:
        part.unlink()
        raise
    os.replace(part, path)
    return path


def download(url: str, part: Path) -> None:
    """Download to `part`, going on from what an earlier call left there where the server can; nothing is verified.

    Args:
        url: http, https or file address.
        part: Where the content goes; its folder exists.

    Raises:
        OSError: The server cannot be reached or refuses, or the connection broke; call again to continue.
    """
    n_have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={n_have}-"} if n_have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SEC)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to fetch
            return
        raise OSError(f"{url}: the server answers {error.code} {error.reason}; fetch it by hand, give --src") from None
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}; without a network fetch it elsewhere and give --src") from None
    with response:
        resumed = n_have > 0 and response.status == 206
        n_have = n_have if resumed else 0
        length = response.headers.get("Content-Length")
        n_total = n_have + int(length) if length else None
        print(f"{url}: {'continuing at' if resumed else 'starting,'} {n_have >> 20} MiB", flush=True)
        try:
            _copy(response, part, n_have, n_total, url)
        except http.client.HTTPException as error:
            raise OSError(f"{url}: the connection broke ({error}); call again to continue") from None


def _copy(response, part: Path, n_have: int, n_total: int | None, url: str) -> None:
    next_note = n_have + (n_total or 0) // 10
    with part.open("ab" if n_have else "wb") as stream:
        while block := response.read(_BLOCK_BYTES):
            stream.write(block)
            n_have += len(block)
            if n_total and n_have >= next_note > 0:
                print(f"{url}: {n_have >> 20} of {n_total >> 20} MiB", flush=True)
                next_note += max(1, n_total // 10)
    if n_total is not None and n_have < n_total:
        raise OSError(f"{url}: the connection broke after {n_have} of {n_total} bytes; call again to continue")


def fetch_archive(url: str, dst: Path, checksum: str) -> None:
    """Download an archive into `dst`, verify it and unpack it there, once.

    A stamp beside it remembers the checksum, so the archive itself may be deleted afterwards.

    Raises:
        ValueError: As `fetch` and `extract`.
        OSError: As `fetch`.
    """
    name = url.rpartition("/")[2]
    stamp = Path(dst) / f".{name}.unpacked"
    if stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == checksum:
        return
    extract(fetch(url, Path(dst) / name, checksum), dst)
    write_text(stamp, f"{checksum}\n")


def extract(archive: Path, dst: Path, max_ratio: float = 20.0, max_bytes: int = 200 << 30) -> None:
    """Unpack a tar or zip archive into `dst`.

    Nothing is written when a member is absolute, leaves `dst`, links outside or is a device, or when the members
    together are larger than `max_bytes` or than `max_ratio` times the archive (and 16 MiB): speech does not compress
    like that, so it is a bomb.

    Raises:
        ValueError: The archive is damaged, dangerous or too large.
    """
    archive, dst = Path(archive), Path(dst)
    cap_bytes = min(max_bytes, max(16 << 20, int(max_ratio * archive.stat().st_size)))
    dst.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _extract_zip(archive, dst, cap_bytes)
        else:
            _extract_tar(archive, dst, cap_bytes)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive}: refused, {error}; fetch it again from its official place") from None


def _extract_tar(archive: Path, dst: Path, cap_bytes: int) -> None:
    with tarfile.open(archive) as tar:
        n_bytes = 0
        for member in tar:  # a first pass over the headers, so that nothing is written if one of them is bad
            if Path(member.name).is_absolute():
                raise tarfile.AbsolutePathError(member)
            tarfile.data_filter(member, str(dst))
            n_bytes = _within(archive, n_bytes + max(0, member.size), cap_bytes)
        tar.extractall(dst, filter="data")


def _extract_zip(archive: Path, dst: Path, cap_bytes: int) -> None:
    with zipfile.ZipFile(archive) as bundle:
        n_bytes = 0
        for member in bundle.infolist():
            target = (dst / member.filename).resolve()
            is_link = member.external_attr >> 28 == 0xA
            if is_link or Path(member.filename).is_absolute() or not target.is_relative_to(dst.resolve()):
                raise zipfile.BadZipFile(f"member {member.filename!r} would be written outside {dst} or is a link")
            n_bytes = _within(archive, n_bytes + member.file_size, cap_bytes)
        bundle.extractall(dst)


def _within(archive: Path, n_bytes: int, cap_bytes: int) -> int:
    if n_bytes > cap_bytes:
        raise ValueError(
            f"{archive}: refused, it expands to more than {cap_bytes >> 20} MiB; if that is right, unpack it by hand"
        )
    return n_bytes


def checkout(url: str, commit: str, dst: Path) -> Path:
    """Fetch one commit of a git repository into `dst`; git verifies every object against the commit's hash.

    Nothing of the repository is run. A finished checkout is not fetched again.

    Raises:
        ValueError: There is no git, or it fails.
    """
    dst = Path(dst)
    if dst.is_dir() and _git(["rev-parse", "HEAD"], dst, check=False) == commit and (dst / ".complete").is_file():
        return dst
    if shutil.which("git") is None:
        raise ValueError(f"{url}: git is needed to fetch it; install git, or fetch it elsewhere and give --src")
    dst.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dst.name}.", dir=dst.parent) as name:
        folder = Path(name) / "checkout"
        folder.mkdir()
        _git(["init", "--quiet"], folder)
        _git(["fetch", "--quiet", "--depth", "1", url, commit], folder)
        _git(["-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", commit], folder)
        write_text(folder / ".complete", f"{commit}\n")
        shutil.rmtree(dst, ignore_errors=True)
        os.replace(folder, dst)
    return dst


def _git(arguments: list[str], folder: Path, check: bool = True) -> str:
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {result.stderr.strip().splitlines()[-1:] or result.returncode}")
    return result.stdout.strip()
