"""CoVoST 2 against the official rule in pandas and against lhotse, its own rules, and what is said of a broken copy."""

import csv
import unicodedata

import pandas
import pytest

from bilevel.corpora import MissingSplitError, covost2
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.datadir import read_datadir, utterance_durations
from bilevel.data.validate import validate
from bilevel.testing.covost2_tree import covost2_tree

PARTS = ("train", "dev", "test")


def by_pandas(src, lang, target, part):
    """What the official script writes: clip -> transcript, translation, speaker."""

    def load(path):
        return pandas.read_csv(path, sep="\t", escapechar="\\", quoting=csv.QUOTE_NONE, na_filter=False)

    joined = load(src / lang / "validated.tsv").merge(load(src / f"covost_v2.{lang}_{target}.tsv"), on="path")
    chosen = joined[joined["split"].isin(["train", "train_covost"] if part == "train" else [part])]
    return {row.path: (row.sentence, row.translation, row.client_id) for row in chosen.itertuples()}


def one_line(text):
    return " ".join(text.split())


@pytest.mark.parametrize(("lang", "target"), [("fr", "en"), ("zh-CN", "en"), ("en", "de"), ("en", "sv-SE")])
def test_agrees_with_the_official_script(lang, target, tmp_path):
    src = covost2_tree(tmp_path, [lang], n_clips=2, odd=True)
    for part in PARTS:
        ours = {f"{u.id}.mp3": u for u in covost2.utterances(src, f"{lang}_{part}")}
        theirs = by_pandas(src, lang, target, part)
        # The one difference in rows: the clip that is not there, which the script does not look for.
        assert theirs.keys() - ours.keys() == ({f"common_voice_{lang}_silent.mp3"} if part == "train" else set())
        assert len(ours) == len(ours.keys() & theirs.keys()) == {"train": 6, "dev": 2, "test": 3}[part]
        for clip, u in ours.items():
            text, translation, speaker = theirs[clip]
            assert (u.text, u.speaker, u.lang) == (one_line(text), speaker, lang)
            assert u.translations.get(target, "") == unicodedata.normalize("NFC", one_line(translation))


def test_odd_rows(tmp_path):
    src = covost2_tree(tmp_path, ["fr"], odd=True)
    rows = {
        part: {u.id.removeprefix("common_voice_fr_"): u for u in covost2.utterances(src, f"fr_{part}")}
        for part in PARTS
    }
    assert {part: {key for key in found if key.isalpha()} for part, found in rows.items()} == {
        "train": {"added", "quoted", "accented", "untold"}, "dev": set(), "test": {"short"},
    }  # fmt: skip
    train = rows["train"]
    assert train["quoted"].text == 'she said: "go on", "twice" \\'
    assert dict(train["quoted"].translations) == {"en": '"Go" "on [en]'}
    assert train["accented"].translations["en"] == "\u00e9t\u00e9 [en]"
    assert dict(train["untold"].translations) == {}
    assert covost2.missing(src, "fr_train") == [
        "clips common_voice_fr_silent.mp3",
        "rows of cv-corpus-4-2019-12-10/fr/validated.tsv for common_voice_fr_unknown.mp3",
    ]
    assert covost2.missing(src, "fr_test") == []


def test_agrees_with_lhotse(tmp_path):
    from lhotse.recipes import prepare_commonvoice

    src = covost2_tree(tmp_path, ["fr"], odd=True, newer=True)
    manifests = prepare_commonvoice(src, tmp_path / "manifests", languages="fr", splits=["validated"])
    theirs = {s.id: s for s in manifests["fr"]["validated"]["supervisions"]}
    ours = {u.id: u for part in PARTS for u in covost2.utterances(src, f"fr_{part}")}
    # Common Voice has clips that CoVoST does not use.
    assert theirs.keys() - ours.keys() == {"common_voice_fr_dropped", "common_voice_fr_spoken"}
    assert len(ours) == len(ours.keys() & theirs.keys()) == 8
    durations_sec = utterance_durations(ours.values())
    for key, u in ours.items():
        assert u.speaker == theirs[key].speaker
        assert u.text == one_line(theirs[key].text.replace('\\"', '"').replace("\\\\", "\\"))
        assert durations_sec[key] == pytest.approx(theirs[key].duration, abs=1e-6)


def test_english_has_a_translation_for_each_table_that_is_there(tmp_path):
    src = covost2_tree(tmp_path, ["en"])
    (whole,) = covost2.utterances(src, "en_train")
    assert dict(whole.translations) == {lang: f"{whole.text} [{lang}]" for lang in covost2.TARGETS["en"]}
    assert len(whole.translations) == 15
    for lang in covost2.TARGETS["en"]:
        if lang not in ("de", "zh-CN"):
            (src / f"covost_v2.en_{lang}.tsv").unlink()
    (src / "covost_v2.en_de.tsv").rename(src / "en" / "covost_v2.en_de.tsv")  # where fairseq looks
    (part,) = covost2.utterances(src, "en_train")
    assert set(part.translations) == {"de", "zh-CN"}


def test_a_clip_in_training_and_in_test_is_refused(tmp_path):
    src = covost2_tree(tmp_path, ["en"])
    table = src / "covost_v2.en_ja.tsv"
    table.write_text(table.read_text(encoding="utf-8").replace("\ttrain\n", "\ttest\n"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"en_ja\.tsv: common_voice_en_17000000\.mp3 is in test, and was in train"):
        list(covost2.utterances(src, "en_dev"))


def test_stage_1_keeps_translations_and_refuses_a_wrong_count(tmp_path, monkeypatch):
    src = covost2_tree(tmp_path, ["fr", "cy"], odd=True)
    wrong = r"fr_train: 5 utterances, expected 207374, .* \(missing: clips common_voice_fr_silent\.mp3, rows of cv-corp"
    with pytest.raises(ValueError, match=wrong):
        prepare("covost2", src, ["fr_train"], tmp_path / "data")
    # All 22 languages: those that are not there are named, the others go on.
    prepare("covost2", src, ["all_train"], tmp_path / "data", options=Options(allow_partial=True))
    rows = {u.id: u for u in read_datadir(tmp_path / "data/all_train")}
    assert {u.lang for u in rows.values()} == {"fr", "cy"}
    assert rows["common_voice_fr_quoted"].text == "she said go on twice"
    assert rows["common_voice_fr_quoted"].translations["en"] == '"Go" "on [en]'
    assert validate(tmp_path / "data/all_train") == []
    monkeypatch.setattr(covost2, "EXPECTED", covost2.EXPECTED | {"cy_dev": (1, None)})
    prepare("covost2", src, ["cy_dev"], tmp_path / "data")
    assert len(read_datadir(tmp_path / "data/cy_dev")) == 1


def test_an_empty_clip_is_counted_and_left_to_stage_3(tmp_path, monkeypatch, capsys):
    src = covost2_tree(tmp_path, ["fr"], n_clips=2)
    (src / "fr/clips/common_voice_fr_17000000.mp3").write_bytes(b"")
    monkeypatch.setattr(covost2, "EXPECTED", covost2.EXPECTED | {"fr_train": (2, None)})
    prepare("covost2", src, ["fr_train"], tmp_path / "data")
    assert "1 of 2 audio files do not open" in capsys.readouterr().out


def test_absent_languages_and_tables(tmp_path):
    src = covost2_tree(tmp_path, ["fr", "de"])
    expected = (
        r"no split 'cy_dev'; found: train, dev and test of fr, de; expected .*/cy/validated\.tsv, .*_v2\.cy_en\.tsv"
    )
    with pytest.raises(MissingSplitError, match=expected):
        list(covost2.utterances(src, "cy_dev"))
    (src / "covost_v2.fr_en.tsv").unlink()
    with pytest.raises(
        MissingSplitError, match=r"'fr_test'; found: train, dev and test of de; .*covost_v2\.fr_en\.tsv"
    ):
        list(covost2.utterances(src, "fr_test"))
    with pytest.raises(
        ValueError, match=r"release cv-corpus-4-2019-12-10 \(fr, en\).*PAIR: fr_en, en_de, .*give --src"
    ):
        prepare("covost2", None, ["fr_train", "fr_dev", "en_dev"], tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path\ttranslation\n", r"fr_en\.tsv:1: columns path, translation, expected path, translation, split"),
        ("", r"fr_en\.tsv:0: columns none, expected path"),
        ("path\ttranslation\tsplit\na.mp3\tx\ttrain\tmore\n", r"fr_en\.tsv:2: 4 cells, expected 3; fetch"),
        ("path\ttranslation\tsplit\n../a.mp3\tx\ttrain\n", r"fr_en\.tsv: clip '\.\./a\.mp3': expected a file name"),
        (b"path\ttranslation\tsplit\na.mp3\t\xff\ttrain\n", r"fr_en\.tsv:0: 'utf-8' codec can't decode"),
    ],
)
def test_broken_tables(content, message, tmp_path):
    src = covost2_tree(tmp_path, ["fr"])
    (src / "covost_v2.fr_en.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        list(covost2.utterances(src, "fr_train"))


def test_published_numbers_are_of_one_kind():
    assert len(covost2.EXPECTED) == 66
    assert len(covost2.TARGETS["en"]) == 15
    assert sum(targets == ("en",) for targets in covost2.TARGETS.values()) == 21
    # Sentences read aloud take three to seven seconds: a slip in a count or in the hours would show.
    checked = [3600 * hours / count for count, hours in covost2.EXPECTED.values() if hours]
    assert len(checked) == 13
    assert 3 < min(checked) < max(checked) < 7
