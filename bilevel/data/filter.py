"""From the formatted dump to the sets that training reads: usable lengths, and text where it is needed."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from bilevel.data.datadir import is_table
from bilevel.data.files import write_lines
from bilevel.data.swap import atomic_dir
from bilevel.data.tables import invert, read_scp

_KEYED = ("utt2num_samples", "utt2num_frames", "feats.scp")
_COPIED = ("feats_type", "feats_dim")
_LISTS = ("dropped.tsv", "overlap.json")


@dataclass
class DumpSet:
    """The tables of one formatted set.

    Attributes:
        path: Its directory.
        tables: Value by utterance, by file name.
        dropped: Reason by utterance that was taken out.
    """

    path: Path
    tables: dict[str, dict[str, str]]
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Utterances in the set, sorted."""
        return sorted(self.tables["utt2spk"])

    def table(self, name: str) -> dict[str, str]:
        """The table of that file name; empty if the set has none."""
        return self.tables.get(name, {})

    def drop(self, reasons: dict[str, str]) -> None:
        """Take utterances out of every table.

        Raises:
            ValueError: Nothing would be left.
        """
        if reasons and len(reasons) >= len(self.ids):
            key, reason = sorted(reasons.items())[0]
            raise ValueError(f"{self.path}: all {len(self.ids)} utterances dropped, {key}: {reason}; check the limits")
        self.dropped |= reasons
        for table in self.tables.values():
            for key in reasons.keys() & table.keys():
                del table[key]


def read_dump(path: Path) -> DumpSet:
    """Read a set that `bilevel format` wrote.

    Raises:
        ValueError: There is none at `path`.
    """
    path = Path(path)
    if not any((path / name).exists() for name in ("utt2num_samples", "utt2num_frames")):
        raise ValueError(f"{path}: not a formatted set (no utt2num_samples or utt2num_frames); run stage 3, format")
    names = [file.name for file in sorted(path.iterdir()) if is_table(file.name) or file.name in _KEYED]
    return DumpSet(path, {name: read_scp(path / name) for name in names if name != "spk2utt"})


def drop_unusable(dump: DumpSet, *, min_sec: float, max_sec: float, labelled: bool) -> None:
    """Take out what training cannot use.

    Args:
        dump: The set; changed in place.
        min_sec: Utterances of this length or less go, as in ESPnet.
        max_sec: Utterances of this length or more go.
        labelled: Whether the transcripts are used: then empty ones go; else all text is left out and empty ones stay.

    Raises:
        ValueError: A labelled set without text, or no utterance is left.
    """
    if labelled and "text" not in dump.tables:
        raise ValueError(f"{dump.path}: no file text; add transcripts, or name the set with --unlabelled_sets")
    reasons = {}
    for key, value in dump.table("utt2dur").items():
        length_sec = float(value)
        if length_sec <= min_sec:
            reasons[key] = f"{length_sec:.3f} s, expected more than {min_sec:g} s"
        elif length_sec >= max_sec:
            reasons[key] = f"{length_sec:.3f} s, expected less than {max_sec:g} s"
        elif labelled and not dump.tables["text"].get(key):
            reasons[key] = "empty transcript"
    dump.drop(reasons)
    if not labelled:
        dump.tables.pop("text", None)


def write_dump(dump: DumpSet, path: Path, extra: dict[str, str] | None = None) -> None:
    """Write the set in one move, with `dropped.tsv` and the files of `extra` (content by name)."""
    owned = {*_KEYED, *_COPIED, *_LISTS}
    with atomic_dir(path, lambda name: is_table(name) or name in owned) as folder:
        for name, table in (dump.tables | {"spk2utt": invert(dump.tables["utt2spk"])}).items():
            write_lines(folder / name, (f"{key} {table[key]}".rstrip() for key in sorted(table)))
        for name in _COPIED:
            if (dump.path / name).exists():
                shutil.copyfile(dump.path / name, folder / name)
        write_lines(folder / "dropped.tsv", (f"{key}\t{dump.dropped[key]}" for key in sorted(dump.dropped)))
        for name, content in (extra or {}).items():
            write_lines(folder / name, [content])


def unknown_characters(known: set[str], texts: dict[str, str]) -> tuple[float, str]:
    """Share of the characters that are not among `known`, and which those are."""
    n_all = sum(map(len, texts.values()))
    unknown = [char for text in texts.values() for char in text if char not in known]
    return (len(unknown) / n_all if n_all else 0.0), "".join(sorted(set(unknown)))
