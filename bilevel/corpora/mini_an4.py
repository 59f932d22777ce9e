"""mini_an4: the seven AN4 utterances inside the installed espnet package, for trying the plumbing.

Layout of AN4: `etc/an4_{train,test}.transcription` with lines `<s> WORDS </s> (an251-fash-b)` (test lines have no
`<s>`), and `wav/{an4_clstk,an4test_clstk}/<speaker>/<name>.sph` in NIST SPHERE, 16 kHz. Ids are those of ESPnet and
Kaldi, with the speaker first: `an251-fash-b` becomes `fash-an251-b`. As in ESPnet's recipe, `train_dev` is the first
utterance of the sorted training set and `train_nodev` the rest. Audio without a transcript (cen7-fash-b) is ignored.
Words are upper case.
"""

import base64
import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError
from bilevel.data.fetch import fetch_archive
from bilevel.data.record import Utterance
from bilevel.data.tables import read_lines

LICENSE = "AN4 licence, Carnegie Mellon University: free for any use, with its notice (file LICENSE in the archive)"
HOMEPAGE = "https://github.com/espnet/espnet/tree/master/egs2/mini_an4"
ARCHIVE = "egs3/mini_an4/esp2_asr/downloads.tar.gz"
RATE_HZ = 16000
SETS = {"train_nodev": ("train_nodev",), "train_dev": ("train_dev",), "test": ("test",)}
EXPECTED = {"train_nodev": (4, 0.00186), "train_dev": (1, 0.00028), "test": (2, 0.00144)}

_FOLDER = {"train": "an4_clstk", "test": "an4test_clstk"}
_LINE = re.compile(r"(.*) \((\w+)-(\w+)-(\w+)\)")


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split; those whose audio file is not there are left out, `missing` names them."""
    return (u for u in _split(_root(src), split) if Path(u.audio).is_file())


def missing(src: Path, split: str) -> list[str]:
    """Transcribed utterances whose audio is not there."""
    return [f"audio {u.audio}" for u in _split(_root(src), split) if not Path(u.audio).is_file()]


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Unpack the archive of the installed espnet package, verified against the package's own RECORD."""
    try:
        package = importlib.metadata.distribution("espnet")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError("mini_an4 lies in the espnet package, which is not installed; install espnet") from None
    record = next((file for file in package.files or [] if file.as_posix() == ARCHIVE), None)
    if record is None or record.hash is None:
        raise ValueError(f"espnet {package.version} does not hold {ARCHIVE}; install it from a wheel")
    digest = base64.urlsafe_b64decode(record.hash.value + "=").hex()
    fetch_archive(Path(record.locate()).as_uri(), dst, f"{record.hash.mode}:{digest}")
    return Path(dst) / "downloads" / "an4"


def _root(src: Path) -> Path:
    for folder in (Path(src), Path(src) / "an4", Path(src) / "downloads" / "an4"):
        if (folder / "etc").is_dir():
            return folder
    raise MissingSplitError(f"{src}: expected AN4's folders etc/ and wav/; found neither")


def _split(root: Path, split: str) -> list[Utterance]:
    if split not in EXPECTED:
        raise MissingSplitError(f"mini_an4: no split {split!r}; found: {', '.join(EXPECTED)}")
    part = "test" if split == "test" else "train"
    rows = sorted(_transcribed(root, part), key=lambda u: u.id)
    return {"train_dev": rows[:1], "train_nodev": rows[1:], "test": rows}[split]


def _transcribed(root: Path, part: str) -> Iterator[Utterance]:
    path = root / "etc" / f"an4_{part}.transcription"
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise ValueError(f"{path}:{number}: expected `WORDS (name-speaker-mark)`, found {line!r}")
        words, name, speaker, mark = match.groups()
        words = words.removeprefix("<s> ").removesuffix(" </s>")
        audio = root / "wav" / _FOLDER[part] / speaker / f"{name}-{speaker}-{mark}.sph"
        yield Utterance(f"{speaker}-{name}-{mark}", str(audio), words, speaker)
