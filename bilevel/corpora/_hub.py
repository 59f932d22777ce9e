"""Datasets on the Hugging Face Hub, by plain https: which files there are, and fetching them."""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bilevel.data.fetch import fetch

_TIMEOUT_SEC = 60


def endpoint() -> str:
    """Address of the Hub, or of the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def list_files(repository: str, folder: str) -> dict[str, tuple[int, str]]:
    """Size and checksum (as `fetch` takes it) of every file below a folder, by path; empty if there is no such folder.

    Large files have a SHA-256; small ones, which git keeps itself, git's own name for their content.

    Raises:
        ValueError: The answer is no list of files.
        OSError: The Hub cannot be reached or refuses.
    """
    url = f"{endpoint()}/api/datasets/{repository}/tree/main/{folder}?recursive=true"
    files = {}
    while url:
        page, link = _get(url)
        try:
            files |= dict(_entry(item) for item in json.loads(page) if item["type"] == "file")
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{url}: expected a list of files with path, size and oid, found {page[:200]!r}") from None
        after = re.search(r'<([^>]+)>;\s*rel="next"', link)
        url = after[1] if after and after[1].startswith(f"{endpoint()}/") else ""
    return files


def fetch_files(repository: str, files: Mapping[str, tuple[int, str]], dst: Path) -> None:
    """Fetch files to `dst/<path>`; a file gets its name when it has been verified, so one of the right size is done.

    Raises:
        ValueError: A checksum is wrong.
        OSError: The connection broke; call again to continue.
    """
    for name, (size, checksum) in sorted(files.items()):
        path = Path(dst) / name
        if not path.is_file() or path.stat().st_size != size:
            fetch(f"{endpoint()}/datasets/{repository}/resolve/main/{name}", path, checksum)


def _entry(item: Mapping) -> tuple[str, tuple[int, str]]:
    path, large = item["path"], item.get("lfs")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"path {path!r} leaves the folder")
    checksum = f"sha256:{large['oid'].removeprefix('sha256:')}" if large else f"git:{item['oid']}"
    return path, (int(item["size"]), checksum)


def _get(url: str) -> tuple[bytes, str]:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SEC) as response:
            return response.read(), response.headers.get("Link") or ""
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return b"[]", ""
        raise OSError(f"{url}: the server answers {error.code} {error.reason}; fetch it by hand, give --src") from None
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}; without a network fetch it elsewhere and give --src") from None
