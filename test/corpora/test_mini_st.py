"""The synthesised corpus for translation: its plan, and that it is the same everywhere."""

import json
from pathlib import Path

import pytest
import soundfile

from bilevel.corpora import MissingSplitError, _espeak, _synthesis, mini_st
from bilevel.corpora._st_grammar import Meaning
from bilevel.corpora._st_words import LANGUAGES
from bilevel.corpora._synthesis import Item
from bilevel.corpora.mini_st import PARTS, Sizes, meanings_and_items
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.datadir import read_datadir
from bilevel.data.validate import validate
from bilevel.testing.corpus import check_corpus

SMALL = Sizes(n_train=8, n_dev=8, n_test=8, n_voices=24)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Meaning, Item]]:
    return list(meanings_and_items(Sizes()))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini_st.prepare(tmp_path_factory.mktemp("mini_st"), nj=2, sizes=SMALL)


def of_part(drawn, part):
    return [(m, item) for m, item in drawn if item.split.endswith(part)]


def test_voices_of_dev_and_test_are_held_out_and_speak_all_languages(drawn):
    voices = {part: {(item.voice, item.lang) for _, item in of_part(drawn, part)} for part in PARTS}
    assert {part: len(found) for part, found in voices.items()} == {"train": 64 * 4, "dev": 8 * 4, "test": 8 * 4}
    variants = [{voice.variant for voice, _ in found} for found in voices.values()]
    assert sum(map(len, variants)) == len(set().union(*variants))


def test_sets_and_sizes(drawn):
    assert set(mini_st.SETS) == {f"{lang}_{part}" for lang in LANGUAGES for part in PARTS} == set(mini_st.EXPECTED)
    for split, (count, _) in mini_st.EXPECTED.items():
        found = [item for _, item in drawn if item.split == split]
        assert len(found) == count
        targets = {"de", "fr", "zh"} if split[:2] == "en" else {"en"}
        assert all(dict(item.translations).keys() == targets for item in found)


def test_dev_and_test_stay_when_the_training_size_changes(drawn):
    larger = list(meanings_and_items(Sizes(n_train=mini_st.N_TRAIN + 10)))
    for part in ("dev", "test"):
        assert of_part(larger, part) == of_part(drawn, part)
    assert of_part(larger, "train")[: 4 * mini_st.N_TRAIN] == of_part(drawn, "train")


@pytest.mark.parametrize("wrong", [{"n_train": 0}, {"n_dev": -1}, {"n_voices": 23}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 24 voices, found Sizes"):
        Sizes(**wrong)


# --- audio and records


def test_keeps_the_contract_of_corpora(corpus):
    check_corpus(mini_st, corpus)


def test_other_job_count_gives_the_same_files(corpus, tmp_path):
    again = mini_st.prepare(tmp_path, nj=1, sizes=SMALL)
    files = [path.relative_to(corpus) for path in corpus.rglob("*.*") if path.suffix in (".wav", ".tsv")]
    files.append(Path("SHA256"))
    assert len(files) == 4 * 24 + 2
    assert all((again / file).read_bytes() == (corpus / file).read_bytes() for file in files)


def test_finished_work_is_kept_and_a_lost_file_restored(corpus, capsys):
    mini_st.prepare(corpus, sizes=SMALL)
    assert "synthesising" not in capsys.readouterr().out
    lost = min(corpus.rglob("*.wav"))
    before = lost.read_bytes()
    lost.unlink()
    mini_st.prepare(corpus, nj=2, sizes=SMALL)
    assert lost.read_bytes() == before


def test_default_dev_splits_have_the_recorded_checksums_and_hours(tmp_path):
    wheel = _espeak.version()
    if wheel not in mini_st.PCM_SHA256:
        pytest.skip(f"no checksums are recorded for {_espeak.WHEEL} {wheel}")
    _synthesis.write_manifest(tmp_path, _synthesis.render_in_fresh_process("mini_st", tmp_path, 1, Sizes()))
    found = _synthesis.split_digests(tmp_path)
    assert found == {f"{lang}_dev": mini_st.PCM_SHA256[wheel][f"{lang}_dev"] for lang in LANGUAGES}
    for split in found:
        rows = list(mini_st.utterances(tmp_path, split))
        hours = sum(soundfile.info(u.audio).duration for u in rows) / 3600
        assert (len(rows), hours) == (mini_st.EXPECTED[split][0], pytest.approx(mini_st.EXPECTED[split][1], abs=5e-5))
        assert 2 < 3600 * hours / len(rows) < 3.5


def test_wrong_checksum_is_an_error_and_an_unknown_wheel_a_note(corpus, capsys):
    digests = _synthesis.split_digests(corpus)
    wrong = {_espeak.version(): digests | {"fr_test": "0" * 64}}
    with pytest.raises(ValueError, match=rf"SHA256: fr_test: found {digests['fr_test']}, expected 0000"):
        _synthesis.verify("mini_st", corpus, wrong)
    _synthesis.verify("mini_st", corpus, {"9.9": {}})
    assert "mini_st: no checksums are recorded" in capsys.readouterr().out


def test_a_corpus_that_fails_its_check_is_not_taken_for_finished(tmp_path):
    sizes = Sizes(n_train=1, n_dev=1, n_test=1, n_voices=24)
    wrong = {_espeak.version(): dict.fromkeys(mini_st.SETS, "0" * 64)}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"SHA256: en_test: found .*, expected 0000"):
            _synthesis.synthesise("mini_st", tmp_path, 2, sizes, [], wrong)
    right = {_espeak.version(): _synthesis.split_digests(tmp_path)}
    assert _synthesis.synthesise("mini_st", tmp_path, 2, sizes, [], right) == tmp_path


def test_records_have_text_language_and_translations(corpus, tmp_path):
    items = {item.id: item for item in mini_st.plan(SMALL)}
    for split in mini_st.SETS:
        for u in mini_st.utterances(corpus, split):
            item = items.pop(u.id)
            assert (u.text, u.lang, u.speaker) == (item.text, split[:2], item.voice.name)
            assert u.translations == dict(item.translations)
            assert u.id.startswith(f"{u.speaker}-")
    assert items == {}
    prepare("mini_st", corpus, ["zh_dev", "en_dev"], tmp_path, options=Options(allow_partial=True))
    for name, targets in (("zh_dev", {"en"}), ("en_dev", {"de", "fr", "zh"})):
        assert validate(tmp_path / name) == []
        assert {path.name for path in (tmp_path / name).glob("text.*")} == {f"text.{target}" for target in targets}
        assert all(u.translations.keys() == targets for u in read_datadir(tmp_path / name))


def test_absent_splits_and_folders(corpus, tmp_path):
    with pytest.raises(MissingSplitError, match=r"no split 'es_dev' in .*; expected one of en_train, en_dev"):
        list(mini_st.utterances(corpus, "es_dev"))
    with pytest.raises(MissingSplitError, match=r"no manifest\.tsv; without --src"):
        list(mini_st.utterances(tmp_path, "de_dev"))


def test_failed_shard_is_reported(tmp_path):
    (tmp_path / "audio").write_text("in the way")
    with pytest.raises(ChildProcessError, match=r"corpus mini_st, shard \d: exit status 1: .*(Not a dir|File exists)"):
        mini_st.prepare(tmp_path, sizes=SMALL)


def test_languages_sound_different_and_an_unknown_one_is_refused():
    espeak = _espeak.Espeak(seed=1)
    how = {"wpm": 170, "pitch": 50, "pitch_range": 50, "volume": 50}
    sounds = [espeak.speak("hotel", "m1", language=name, **how).tobytes() for name in ("en-us", "de", "fr")]
    assert len(set(sounds)) == 3
    with pytest.raises(ValueError, match=r"no language 'klingon'; run: pip install espeakng-loader"):
        espeak.speak("hotel", "m1", language="klingon", **how)


def test_manifest_is_one_line_an_utterance(corpus):
    lines = (corpus / "manifest.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 4 * 24
    assert all(json.loads(line.split("\t")[-1]) for line in lines[1:])
