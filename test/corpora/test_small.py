"""fsdd, speechocean762 and mini_an4: published layout, splits, ids; and the plain Kaldi folders of real speech."""

import importlib.metadata

import pytest

from bilevel.corpora import MissingSplitError, fsdd, kaldi, mini_an4, speechocean762
from bilevel.data.datadir import utterance_durations
from bilevel.testing.trees import an4_tree, fsdd_tree, kaldi_tree, speechocean762_tree


def test_fsdd_splits_by_index(tmp_path):
    src = fsdd_tree(tmp_path, speakers=("theo",), indices=(0, 4, 5, 9, 10, 49))
    (src / "recordings" / "notes_of_theo.wav").write_bytes(b"")
    ids = {split: [u.id for u in fsdd.utterances(src, split)] for split in fsdd.SETS}
    assert [len(ids[split]) for split in ("test", "dev", "train")] == [20, 20, 20]
    assert ids["test"][:3] == ["theo-0-00", "theo-0-04", "theo-1-00"]
    assert {key[-2:] for key in ids["dev"]} == {"05", "09"}
    assert {key[-2:] for key in ids["train"]} == {"10", "49"}
    assert [u.text for u in fsdd.utterances(src, "test")][6:8] == ["three", "three"]
    # 6 speakers x 10 digits x 5 recordings published, 20 here
    assert len(fsdd.missing(src, "test")) == 300 - 20
    assert "recording 0_george_0.wav" in fsdd.missing(src, "test")


def test_speechocean762_holds_every_tenth_training_speaker_out(tmp_path):
    src = speechocean762_tree(tmp_path, n_speakers=21, n_utterances=2)
    rows = {split: list(speechocean762.utterances(src, split)) for split in speechocean762.SETS}
    training = sorted({f"{2 * n + 1:04d}" for n in range(21)})
    assert {u.speaker for u in rows["dev"]} == {training[9], training[19]}
    assert len(rows["train"]) == 19 * 2
    assert len(rows["test"]) == 21 * 2
    assert rows["test"][0].id == "000020011"
    assert rows["test"][0].text.isupper()


def test_speechocean762_as_plain_kaldi_directories(tmp_path):
    src = speechocean762_tree(tmp_path)
    ours = list(speechocean762.utterances(src, "test"))
    assert sorted(kaldi.utterances(src, "test"), key=lambda u: u.id) == ours


def test_speechocean762_names_lost_audio(tmp_path):
    src = speechocean762_tree(tmp_path)
    victim = next(iter(speechocean762.utterances(src, "test")))
    (src / victim.audio).unlink()
    assert speechocean762.missing(src, "test") == [f"audio {victim.audio}"]
    assert victim not in list(speechocean762.utterances(src, "test"))


def test_an4_ids_and_splits_are_espnets(tmp_path):
    src = an4_tree(tmp_path)
    ids = {split: [u.id for u in mini_an4.utterances(src, split)] for split in mini_an4.EXPECTED}
    assert ids == {
        "train_dev": ["fash-an251-b"],
        "train_nodev": ["fash-an253-b", "fbbh-cen8-b", "mwhw-an152-b", "mwhw-cen8-b"],
        "test": ["fcaw-cen8-b", "mmxg-cen8-b"],
    }
    assert all("<" not in u.text for split in ids for u in mini_an4.utterances(src, split))


def test_an4_broken_transcript_names_the_line(tmp_path):
    src = an4_tree(tmp_path)
    (src / "etc" / "an4_test.transcription").write_text("GO (cen8-fcaw-b)\nNO ID HERE\n")
    with pytest.raises(ValueError, match=r"an4_test\.transcription:2: expected"):
        list(mini_an4.utterances(src, "test"))


def test_mini_an4_comes_out_of_the_installed_package(tmp_path):
    src = mini_an4.download(tmp_path, ())
    rows = [u for split in mini_an4.EXPECTED for u in mini_an4.utterances(src, split)]
    assert {split: len(list(mini_an4.utterances(src, split))) for split in mini_an4.EXPECTED} == {
        split: n for split, (n, _) in mini_an4.EXPECTED.items()
    }
    hours = sum(utterance_durations(rows).values()) / 3600
    assert hours == pytest.approx(sum(hours for _, hours in mini_an4.EXPECTED.values()), rel=0.01)
    assert {u.id: u.text for u in rows}["fbbh-cen8-b"] == "MARCH THIRD NINETEEN TWENTY EIGHT"


def test_mini_an4_without_espnet(monkeypatch, tmp_path):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ValueError, match="install espnet"):
        mini_an4.download(tmp_path, ())


@pytest.mark.parametrize("module", [fsdd, speechocean762])
def test_a_plain_kaldi_folder_will_do(module, tmp_path):
    src = kaldi_tree(tmp_path)
    assert [u.id for u in module.utterances(src, "dev")] == ["dev-0", "dev-1", "dev-2"]
    with pytest.raises(MissingSplitError, match="found: dev, test, train"):
        list(module.utterances(src, "eval"))


@pytest.mark.parametrize(
    ("module", "counts"),
    [(fsdd, {"train": 1500, "dev": 500, "test": 500}), (speechocean762, {"train": 3220, "dev": 480, "test": 700})],
)
def test_real_speech(module, counts, shared):
    src = shared / "data" / "real" / module.__name__.rpartition(".")[2]
    found = {split: list(module.utterances(src, split)) for split in counts}
    assert {split: len(rows) for split, rows in found.items()} == counts
    assert len({u.id for rows in found.values() for u in rows}) == sum(counts.values())
    assert all(u.text and u.speaker for rows in found.values() for u in rows)
