"""The data of training objectives: for each its utterances, and the text that it predicts."""

from dataclasses import dataclass
from pathlib import Path

from bilevel.data.files import write_lines
from bilevel.data.tables import read_scp
from bilevel.espnet.dump import DumpSet

SSL = "ssl"


@dataclass(frozen=True)
class Stream:
    """One objective and the dump directories that it learns from.

    Attributes:
        name: `asr_<lang>` (transcripts), `st_<lang>_<target>` (translations), or `ssl` (speech alone).
        train: Dump directories for training.
        valid: Dump directories for validation.
        tokens: Folder of the token list; None for `ssl`.
        token_type: bpe, char or word, as that list is; None for `ssl`.

    Raises:
        ValueError: Another name or type, or a token list too many or too few.
    """

    name: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...]
    tokens: Path | None = None
    token_type: str | None = None

    def __post_init__(self) -> None:
        n_words = {"asr": 2, "st": 3, SSL: 1}.get(self.task)
        if len(self.name.split("_")) != n_words:
            raise ValueError(f"objective {self.name!r}: expected asr_<lang>, st_<lang>_<target> or {SSL}")
        if (self.tokens is None) != (self.task == SSL):
            raise ValueError(f"objective {self.name}: expected a token list for asr and st, none for {SSL}")
        if self.tokens is not None and self.token_type not in ("bpe", "char", "word"):
            raise ValueError(f"objective {self.name}: token type {self.token_type!r}: expected bpe, char or word")

    @classmethod
    def read(cls, name: str, train: str, valid: str, tokens: str, token_type: str) -> "Stream":
        """From words of a command line: directories joined by commas, `-` for no token list and no type."""
        dirs = [tuple(map(Path, names.split(","))) for names in (train, valid)]
        return cls(name, *dirs) if tokens == "-" else cls(name, *dirs, Path(tokens), token_type)

    @property
    def task(self) -> str:
        """asr, st or ssl."""
        return self.name.split("_")[0]

    @property
    def table(self) -> str | None:
        """The table that the objective predicts: `text`, or `text.<target>`; None for `ssl`."""
        return {"asr": "text", "st": f"text.{self.name.split('_')[-1]}"}.get(self.task)

    def write(self, folder: Path) -> None:
        """Write FOLDER/{train,valid}/{scp,shape,text}: entries, lengths and text of the utterances that have some.

        Raises:
            ValueError: An utterance in two directories, directories of different kinds, or none with text.
        """
        for split, dirs in (("train", self.train), ("valid", self.valid)):
            scp, lengths, text = self._tables(dirs)
            keys = sorted(scp if self.table is None else (key for key, words in text.items() if words.strip()))
            if not keys:
                raise ValueError(f"objective {self.name}: no utterance of {_names(dirs)} has text in {self.table}")
            write_lines(folder / split / "scp", [f"{key} {scp[key]}" for key in keys])
            write_lines(folder / split / "shape", [f"{key} {lengths[key]}" for key in keys])
            if self.table:
                write_lines(folder / split / "text", [f"{key} {text[key]}" for key in keys])

    def _tables(self, dirs: tuple[Path, ...]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        dumps = [DumpSet(folder) for folder in dirs]
        if len({(dump.type, dump.input_size()) for dump in dumps}) > 1:
            raise ValueError(f"objective {self.name}: {_names(dirs)} are audio and features, or of several dimensions")
        found: tuple[dict[str, str], ...] = ({}, {}, {})
        for dump in dumps:
            text = {}
            if self.table:
                if not (dump.folder / self.table).exists():
                    raise ValueError(
                        f"{dump.folder / self.table}: no such file, which {self.name} predicts; the corpus has no such "
                        "language, or stage 1 ran without text"
                    )
                text = read_scp(dump.folder / self.table)
            shapes = dict(line.split(" ", 1) for line in dump.speech_shapes())
            for table, more in zip(found, (read_scp(dump.scp), shapes, text), strict=True):
                twice = sorted(table.keys() & more.keys())
                if twice:
                    raise ValueError(f"objective {self.name}: {twice[0]} is in two of {_names(dirs)}")
                table |= more
        return found


def _names(dirs: tuple[Path, ...]) -> str:
    return ", ".join(map(str, dirs))
