"""CoVoST 2: sentences of Common Voice read aloud, with translations of 21 languages to English and of English to 15.

Layout of the source folder: for each spoken language `<lang>/validated.tsv` and `<lang>/clips/*.mp3`, as Common Voice
release 4 (cv-corpus-4-2019-12-10) unpacks into it; the tables of translations, `covost_v2.<lang>_<target>.tsv`
(columns path, translation, split), beside these folders or inside them. Other languages need not be there.

Splits are `<lang>_<part>`, such as `fr_train`, `zh-CN_dev` or `en_test`; the set `all_<part>` joins the 22 languages.

Rules, those of the official `get_covost_splits.py` (version 2) and fairseq's `prep_covost_data.py`
* An utterance is a row of the table of translations and the row of `validated.tsv` with the same clip. The part is
  the table's: train is `train` and `train_covost` together; dev and test are `dev` and `test` (those that Common
  Voice has); all other names belong to no part. Common Voice's own train.tsv, dev.tsv and test.tsv are not used.
* Tables have no quoting; a backslash escapes the character after it, so an escaped quote loses its backslash. Cells
  that lack at the end of a row are empty.
* Ids are the clips' names without `.mp3`, as in fairseq; the speaker is `client_id`.
* A row whose clip is not there is left out, as in fairseq; `missing` names it. fairseq also leaves out clips that do
  not open (some are empty); here stage 3 quarantines and lists them.
* Of a clip that comes again in a table, the first row counts (the script would pair each with each).
* Text is the transcript as published, in one line. `translations` has the translation by target language, in one line
  and in Unicode form NFC, with its case, its marks and Persian's zero-width letters; an empty one is left out.
* English has one record a clip, with a translation for each of the 15 tables that are there. Each lists as many clips a
  part as the others; should two put a clip into different parts, that is an error.

Clips have several rates, most of them 48 kHz, so recipes convert (`--resample true`).

lhotse (`prepare_commonvoice`) knows Common Voice alone: of `splits=["validated"]`, ours are those with a translation.
Ids, speakers and durations agree. Its texts keep the backslashes and the white space inside. It needs columns
(accents, variant) that release 4 has not.

EXPECTED: numbers of utterances are the rows that the official script gives (card of huggingface.co/datasets/covost2;
for English the same for each target). Hours are those of the paper's first table: in brackets, with CoVoST's
additions, for train, without them for dev and test. They are whole hours, and nobody says how they were rounded, so
only those from 20 h on are checked, to 5 %. Those of English are not: the copy of the table that we read ends before
them. Nobody publishes checksums, and Common Voice asks for consent to its terms, so nothing is downloaded.

Reference: C. Wang, A. Wu, J. Pino, CoVoST 2 and Massively Multilingual Speech-to-Text Translation, 2020 (arXiv
2007.10310).
"""

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from bilevel.corpora import MissingSplitError, shorten
from bilevel.data.record import Utterance, is_safe_id

LICENSE = "CC0 1.0: clips by Mozilla Common Voice, translations by CoVoST"
HOMEPAGE = "https://github.com/facebookresearch/covost"
RATE_HZ = None
RELEASE = "cv-corpus-4-2019-12-10"
PARTS = {"train": {"train", "train_covost"}, "dev": {"dev"}, "test": {"test"}}
_TO_ENGLISH = (
    "fr", "de", "es", "ca", "it", "ru", "zh-CN", "pt", "fa", "et", "mn", "nl", "tr", "ar", "sv-SE", "lv", "sl", "ta",
    "ja", "id", "cy",
)  # fmt: skip
_OF_ENGLISH = ("de", "tr", "fa", "sv-SE", "mn", "zh-CN", "cy", "ca", "sl", "et", "id", "ar", "ta", "lv", "ja")
TARGETS = {"en": _OF_ENGLISH} | dict.fromkeys(_TO_ENGLISH, ("en",))
SETS = {f"{lang}_{part}": (f"{lang}_{part}",) for lang in TARGETS for part in PARTS} | {
    f"all_{part}": tuple(f"{lang}_{part}" for lang in TARGETS) for part in PARTS
}
_SIZES = {
    "en": ((289430, None), (15531, None), (15531, None)),
    "fr": ((207374, 264), (14760, 22), (14760, 23)),
    "de": ((127834, 184), (13511, 21), (13511, 22)),
    "es": ((79015, 113), (13221, 22), (13221, 23)),
    "ca": ((95854, 136), (12730, None), (12730, 20)),
    "it": ((31698, 44), (8940, None), (8951, None)),
    "ru": ((12112, None), (6110, None), (6300, None)),
    "zh-CN": ((7085, None), (4843, None), (4898, None)),
    "pt": ((9158, None), (3318, None), (4023, None)),
    "fa": ((53949, 49), (3445, None), (3445, None)),
    "et": ((1782, None), (1576, None), (1571, None)),
    "mn": ((2067, None), (1761, None), (1759, None)),
    "nl": ((7108, None), (1699, None), (1699, None)),
    "tr": ((3966, None), (1624, None), (1629, None)),
    "ar": ((2283, None), (1758, None), (1695, None)),
    "sv-SE": ((2160, None), (1349, None), (1595, None)),
    "lv": ((2337, None), (1125, None), (1629, None)),
    "sl": ((1843, None), (509, None), (360, None)),
    "ta": ((1358, None), (384, None), (786, None)),
    "ja": ((1119, None), (635, None), (684, None)),
    "id": ((1243, None), (792, None), (844, None)),
    "cy": ((1241, None), (690, None), (690, None)),
}
EXPECTED = {f"{lang}_{part}": size for lang, sizes in _SIZES.items() for part, size in zip(PARTS, sizes, strict=True)}
HOURS_TOLERANCE = 0.05


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, in the order of `validated.tsv`."""
    folder, tables, part = _sources(src, split)
    translations = _translations(tables, part)
    for clip, text, speaker in _rows(folder / "validated.tsv", ("path", "sentence", "client_id")):
        translated = translations.pop(clip, None)
        audio = folder / "clips" / clip
        if translated is not None and audio.is_file():
            yield Utterance(
                id=audio.stem,
                audio=str(audio),
                text=_one_line(text),
                speaker=speaker,
                lang=folder.name,
                translations=translated,
            )


def missing(src: Path, split: str) -> list[str]:
    """Clips of the split that are not there, and those that `validated.tsv` does not know."""
    folder, tables, part = _sources(src, split)
    clips = _translations(tables, part).keys()
    known = {clip for (clip,) in _rows(folder / "validated.tsv", ("path",))}
    silent = sorted(clip for clip in clips & known if not (folder / "clips" / clip).is_file())
    unknown = sorted(clips - known)
    faults = [f"clips {shorten(silent)}"] if silent else []
    return faults + ([f"rows of {RELEASE}/{folder.name}/validated.tsv for {shorten(unknown)}"] if unknown else [])


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Say how to get the splits: Common Voice asks each user for consent.

    Raises:
        ValueError: Always.
    """
    langs = list(dict.fromkeys(split.rpartition("_")[0] for split in splits))
    pairs = [f"{lang}_{target}" for lang in langs for target in TARGETS[lang]]
    raise ValueError(
        f"Common Voice is not downloaded, it asks for your consent: accept its terms at "
        f"https://commonvoice.mozilla.org/datasets, unpack its release {RELEASE} ({', '.join(langs)}) so that there is "
        f"DIR/{langs[0]}/validated.tsv, and the tables https://dl.fbaipublicfiles.com/covost/covost_v2.PAIR.tsv.tar.gz "
        f"(PAIR: {shorten(pairs)}) into DIR; then give --src DIR"
    )


def _sources(src: Path, split: str) -> tuple[Path, list[Path], str]:
    """Folder of the language, its tables of translations, and the part."""
    lang, _, part = split.rpartition("_")
    found = [name for name in TARGETS if (Path(src) / name / "validated.tsv").is_file() and _tables(src, name)]
    if split in EXPECTED and lang in found:
        return Path(src) / lang, _tables(src, lang), part
    pair = f"{lang}_{TARGETS[lang][0]}" if split in EXPECTED else "fr_en"
    raise MissingSplitError(
        f"{src}: no split {split!r}; found: train, dev and test of {', '.join(found) or 'no language'}; expected "
        f"{src}/{pair.split('_')[0]}/validated.tsv, clips beside it, and {src}/covost_v2.{pair}.tsv"
    )


def _tables(src: Path, lang: str) -> list[Path]:
    names = [f"covost_v2.{lang}_{target}.tsv" for target in TARGETS[lang]]
    paths = [folder / name for name in names for folder in (Path(src), Path(src) / lang)]
    return [path for path in paths if path.is_file()]


def _translations(tables: Sequence[Path], part: str) -> dict[str, dict[str, str]]:
    """Translations by clip and target language, of all clips of one part."""
    part_of: dict[str, str] = {}
    found: dict[str, dict[str, str]] = {}
    for table in tables:
        target = table.stem.rpartition("_")[2]
        for clip, translation, name in _rows(table, ("path", "translation", "split")):
            here = next((p for p, names in PARTS.items() if name in names), None)
            if here is None:
                continue
            if not is_safe_id(clip):
                raise ValueError(f"{table}: clip {clip!r}: expected a file name such as common_voice_fr_17299384.mp3")
            if part_of.setdefault(clip, here) != here:
                raise ValueError(
                    f"{table}: {clip} is in {here}, and was in {part_of[clip]} before; a clip in two parts leaks from "
                    "training to test: take one of the tables out of the folder"
                )
            if here == part:
                texts = found.setdefault(clip, {})
                if translation := unicodedata.normalize("NFC", _one_line(translation)):
                    texts.setdefault(target, translation)
    return found


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The named cells of each row of a table."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        try:
            header = next(reader, [])
            if not set(columns) <= set(header):
                raise ValueError(f"columns {', '.join(header) or 'none'}, expected {', '.join(columns)}")
            places = [header.index(column) for column in columns]
            for cells in reader:
                if len(cells) > len(header):
                    raise ValueError(f"{len(cells)} cells, expected {len(header)}")
                cells += [""] * (len(header) - len(cells))
                yield tuple(cells[place] for place in places)
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}; fetch the table again") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())
