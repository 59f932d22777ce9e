"""LibriSpeech and AISHELL-1 as one corpus: each is what its own module says, with its language."""

from dataclasses import replace

import pytest

from bilevel.corpora import MissingSplitError, aishell, librispeech, librispeech_aishell
from bilevel.corpora.prepare import prepare
from bilevel.data.datadir import read_datadir
from bilevel.testing.trees import aishell_tree, librispeech_aishell_tree, librispeech_tree


def test_splits_are_those_of_the_two_modules(tmp_path):
    src = librispeech_aishell_tree(tmp_path)
    ids = []
    for name, corpus, lang in (("librispeech", librispeech, "en"), ("aishell", aishell, "zh")):
        splits = [split for split in librispeech_aishell.EXPECTED if split.startswith(f"{name}/")]
        for split in splits:
            part = split.removeprefix(f"{name}/")
            ours = list(librispeech_aishell.utterances(src, split))
            assert ours == [replace(u, lang=lang) for u in corpus.utterances(src / name, part)]
            assert librispeech_aishell.EXPECTED[split] == corpus.EXPECTED[part]
            ids += [u.id for u in ours]
    assert len(set(ids)) == len(ids)


def test_english_training_is_all_960_hours_and_contains_the_100():
    hours = [librispeech_aishell.EXPECTED[split][1] for split in librispeech_aishell.SETS["en_train"]]
    assert sum(hours) == pytest.approx(960, abs=2)
    assert set(librispeech_aishell.SETS["en_train_100"]) < set(librispeech_aishell.SETS["en_train"])
    assert set(librispeech_aishell.EXPECTED) == {s for parts in librispeech_aishell.SETS.values() for s in parts}


def test_links_to_folders_elsewhere_and_one_corpus_alone(tmp_path, monkeypatch):
    books, mandarin = librispeech_tree(tmp_path / "books", ["dev-clean"]), aishell_tree(tmp_path / "mandarin")
    src = tmp_path / "src"
    src.mkdir()
    (src / "aishell").symlink_to(mandarin)
    with pytest.raises(
        MissingSplitError, match=r"'librispeech/dev-clean'; found folders: aishell; expected .*/librispeech/, as --corp"
    ):
        list(librispeech_aishell.utterances(src, "librispeech/dev-clean"))
    (src / "librispeech").symlink_to(books)
    monkeypatch.setattr(librispeech_aishell, "EXPECTED", {"librispeech/dev-clean": (8, None), "aishell/dev": (4, None)})
    prepare("librispeech_aishell", src, ["en_dev", "zh_dev"], tmp_path / "data")
    for name, count in (("en_dev", 8), ("zh_dev", 4)):
        rows = read_datadir(tmp_path / "data" / name)
        assert len(rows) == count
        assert {u.lang for u in rows} == {name[:2]}


def test_what_is_missing_is_told_by_the_corpus_it_is_of(tmp_path):
    src = librispeech_aishell_tree(tmp_path)
    next((src / "librispeech").rglob("dev-clean/*/*/*.flac")).unlink()
    next((src / "aishell").rglob("wav/dev/*/*.wav")).unlink()
    for split in ("librispeech/dev-clean", "aishell/dev"):
        (fault,) = librispeech_aishell.missing(src, split)
        assert fault.startswith("audio of ")
    assert librispeech_aishell.missing(src, "aishell/test") == []


def test_download_fetches_what_the_splits_need_into_a_folder_for_each(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(librispeech, "download", lambda dst, splits: calls.append((dst, splits)))
    monkeypatch.setattr(aishell, "download", lambda dst, splits: calls.append((dst, splits)))
    assert librispeech_aishell.download(tmp_path, ["librispeech/dev-clean", "aishell/dev"]) == tmp_path
    assert calls == [(tmp_path / "librispeech", ["dev-clean"]), (tmp_path / "aishell", ["dev"])]
    calls.clear()
    librispeech_aishell.download(tmp_path, ["aishell/train", "aishell/test"])
    assert calls == [(tmp_path / "aishell", ["train", "test"])]
