"""LibriSpeech against lhotse on the same miniature tree, and what is said of an incomplete one."""

import shutil

import pytest

from bilevel.corpora import MissingSplitError, librispeech
from bilevel.data.datadir import utterance_durations
from bilevel.testing.trees import LIBRISPEECH_SPLITS, librispeech_tree


def by_lhotse(src, split):
    from lhotse.recipes import prepare_librispeech

    manifests = prepare_librispeech(src, dataset_parts=[split])[split]
    return {s.id: (s.text, s.speaker, s.duration, s.start) for s in manifests["supervisions"]}


@pytest.mark.parametrize("split", LIBRISPEECH_SPLITS)
def test_agrees_with_lhotse(split, tmp_path):
    src = librispeech_tree(tmp_path, splits=[split], odd=True)
    ours = {u.id: u for u in librispeech.utterances(src, split)}
    theirs = by_lhotse(src, split)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 * 2 * 2 + 1
    durations_sec = utterance_durations(ours.values())
    for key, (text, speaker, duration_sec, start_sec) in theirs.items():
        assert ours[key].text == text
        # The one difference: our speaker is Kaldi's, with the chapter.
        assert ours[key].speaker == f"{speaker}-{key.split('-')[1]}"
        assert durations_sec[key] == pytest.approx(duration_sec, abs=1e-9)
        assert (start_sec, ours[key].start_sec) == (0.0, None)


def test_odd_entries(tmp_path):
    src = librispeech_tree(tmp_path, splits=["dev-clean"], odd=True)
    texts = {u.id: u.text for u in librispeech.utterances(src, "dev-clean")}
    assert texts["19-198-0092"] == "Quiet IT'S"
    assert not {"19-198-0090", "19-198-0091"} & texts.keys()
    assert librispeech.missing(src, "dev-clean") == ["transcripts of 19-198-0090", "audio of 19-198-0091"]


def test_an_id_without_words_has_an_empty_text(tmp_path):
    """Lhotse stops there, so it cannot be asked."""
    src = librispeech_tree(tmp_path, splits=["dev-clean"])
    transcript = src / "dev-clean" / "19" / "198" / "19-198.trans.txt"
    transcript.write_text("19-198-0000\n19-198-0001 GO\n")
    assert {u.id: u.text for u in librispeech.utterances(src, "dev-clean")}["19-198-0000"] == ""


def test_missing_names_speakers_and_chapters(tmp_path):
    src = librispeech_tree(tmp_path, splits=["train-clean-100", "dev-clean"], n_speakers=3)
    shutil.rmtree(src / "train-clean-100" / "26")
    shutil.rmtree(src / "train-clean-100" / "33" / "200")
    assert librispeech.missing(src, "train-clean-100") == [
        "speakers of SPEAKERS.TXT: 26",
        "chapters of CHAPTERS.TXT: 33/200",
    ]
    assert librispeech.missing(src, "dev-clean") == []


def test_parent_folder_will_do(tmp_path):
    src = librispeech_tree(tmp_path, splits=["dev-other"])
    assert list(librispeech.utterances(tmp_path, "dev-other")) == list(librispeech.utterances(src, "dev-other"))


def test_missing_split_lists_those_found(tmp_path):
    src = librispeech_tree(tmp_path, splits=["dev-clean", "test-clean"], n_speakers=1)
    with pytest.raises(MissingSplitError, match=r"'test-other'; found: dev-clean, test-clean; expected"):
        list(librispeech.utterances(src, "test-other"))


def test_transcript_of_another_chapter(tmp_path):
    src = librispeech_tree(tmp_path, splits=["dev-clean"])
    (src / "dev-clean" / "19" / "198" / "19-198.trans.txt").write_text("19-199-0000 GO\n")
    with pytest.raises(ValueError, match=r"19-198\.trans\.txt:1: id '19-199-0000'"):
        list(librispeech.utterances(src, "dev-clean"))


def test_published_numbers_add_up():
    total = {s: sum(librispeech.EXPECTED[p][0] for p in parts) for s, parts in librispeech.SETS.items()}
    assert (total["train_460"], total["train_960"]) == (132553, 281241)
    assert sum(librispeech.EXPECTED[p][1] for p in librispeech.SETS["train_960"]) == pytest.approx(961.1)
    assert set(librispeech.MD5) == set(librispeech.EXPECTED)
