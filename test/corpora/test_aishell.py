"""AISHELL-1 against lhotse on the same miniature tree, its rules, the download, and what is said of a broken copy."""

import io
import shutil
import tarfile

import pytest

from bilevel.corpora import MissingSplitError, aishell
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.datadir import read_datadir, utterance_durations
from bilevel.data.fetch import digest
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate
from bilevel.testing.aishell_tree import aishell_tree, pack_aishell

# lhotse's difference to us: five full-width letters made plain, and capitals.
PLAIN = str.maketrans("ａｂｃｋｔ", "abckt")


def test_agrees_with_lhotse(tmp_path):
    from lhotse.recipes import prepare_aishell

    src = aishell_tree(tmp_path, odd=True)
    manifests = prepare_aishell(tmp_path)
    for split in aishell.SETS:
        ours = {u.id: u for u in aishell.utterances(src, split)}
        theirs = {s.id: s for s in manifests[split]["supervisions"]}
        assert ours.keys() == theirs.keys()
        assert len(ours) == 4 + (split == "train")
        durations_sec = utterance_durations(ours.values())
        for key, segment in theirs.items():
            assert ours[key].text.translate(PLAIN).upper() == segment.text
            assert ours[key].speaker == segment.speaker
            assert durations_sec[key] == pytest.approx(segment.duration, abs=1e-9)
            assert (segment.start, ours[key].start_sec) == (0.0, None)


def test_odd_entries(tmp_path):
    src = aishell_tree(tmp_path, odd=True)
    texts = {u.id: u.text for u in aishell.utterances(src, "train")}
    assert texts["BAC009S0002W0902"] == "ｔ恤Vipａｂｃｋ卡拉OK"
    assert not {"BAC009S0002W0900", "BAC009S0002W0901"} & texts.keys()
    assert aishell.missing(src, "train") == ["audio of BAC009S0002W0901"]
    assert aishell.missing(src, "dev") == []


def test_stage_1_gives_sound_data_directories_and_refuses_a_wrong_count(tmp_path, monkeypatch):
    src = aishell_tree(tmp_path)
    shutil.rmtree(src / "wav/train/S0003")
    wrong = r"train: 2 utterances, expected 120098, .* \(missing: speakers of the transcript in no split: S0003\)"
    with pytest.raises(ValueError, match=wrong):
        prepare("aishell", src, ["train"], tmp_path / "data")
    prepare("aishell", src, ["train"], tmp_path / "data", options=Options(allow_partial=True))
    assert {u.speaker for u in read_datadir(tmp_path / "data/train")} == {"S0002"}
    assert validate(tmp_path / "data/train") == []
    monkeypatch.setattr(aishell, "EXPECTED", {"test": (4, None)})
    prepare("aishell", src, ["test"], tmp_path / "data")
    text = read_scp(tmp_path / "data/test/text")
    assert text == {u.id: u.text for u in aishell.utterances(src, "test")}
    assert not any(" " in line for line in text.values())


def published(tmp_path, monkeypatch):
    """The corpus as OpenSLR has it, served from a folder; returns the records that it must give."""
    src = aishell_tree(tmp_path / "origin")
    rows = {split: contents(src, split) for split in aishell.SETS}
    archive = pack_aishell(src)
    monkeypatch.setattr(aishell, "URL", archive.as_uri())
    monkeypatch.setattr(aishell, "MD5", digest(archive, "md5"))
    return rows


def contents(src, split):
    return {u.id: (u.text, u.speaker, digest(u.audio, "md5")) for u in aishell.utterances(src, split)}


def test_download_unpacks_the_speakers_and_goes_on_after_a_break(tmp_path, monkeypatch):
    rows = published(tmp_path, monkeypatch)
    unpack = aishell.extract

    def breaks(archive, dst):
        if archive.name == "S0725.tar.gz":
            raise OSError("no space left on device")
        unpack(archive, dst)

    monkeypatch.setattr(aishell, "extract", breaks)
    with pytest.raises(OSError, match="no space left"):
        aishell.download(tmp_path / "downloads", ["train"])
    root = tmp_path / "downloads/data_aishell"
    packed = "S0725.tar.gz, S0764.tar.gz, S0765.tar.gz"
    assert aishell.missing(root, "dev") == [f"contents of {packed} in {root / 'wav'}: unpack them there"]
    monkeypatch.setattr(aishell, "extract", unpack)
    assert aishell.download(tmp_path / "downloads", ["train"]) == root
    assert {split: contents(root, split) for split in aishell.SETS} == rows
    assert list(root.glob("wav/*.tar.gz")) == []


def test_a_speaker_that_leaves_the_folder_is_refused(tmp_path, monkeypatch):
    published(tmp_path, monkeypatch)
    aishell.download(tmp_path / "downloads", ["train"])
    evil = tmp_path / "downloads/data_aishell/wav/S0999.tar.gz"
    with tarfile.open(evil, "w:gz") as tar:
        member = tarfile.TarInfo("../../../../evil.wav")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"RIFF"))
    with pytest.raises(ValueError, match=r"S0999\.tar\.gz: refused"):
        aishell.download(tmp_path / "downloads", ["train"])
    assert list(tmp_path.rglob("evil.wav")) == []


def test_a_copy_whose_speakers_are_packed(tmp_path):
    archive = pack_aishell(aishell_tree(tmp_path))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    with pytest.raises(MissingSplitError, match=r"found: none \(its speakers are still packed: unpack wav/\*\.tar\.gz"):
        list(aishell.utterances(tmp_path, "train"))


def test_folders_and_refusals(tmp_path):
    src = aishell_tree(tmp_path)
    assert list(aishell.utterances(tmp_path, "dev")) == list(aishell.utterances(src, "dev"))
    shutil.rmtree(src / "wav/test")
    with pytest.raises(MissingSplitError, match=r"no split 'test'; found: train, dev; expected .*/wav/test/"):
        list(aishell.utterances(src, "test"))
    transcript = src / "transcript/aishell_transcript_v0.8.txt"
    transcript.write_text("BAC009S0002W0121\nBAC009S0002W0122 大\n", encoding="utf-8")
    texts = {u.id: u.text for u in aishell.utterances(src, "train")}
    assert texts == {"BAC009S0002W0121": "", "BAC009S0002W0122": "大"}
    transcript.unlink()
    with pytest.raises(ValueError, match=r"no transcript/aishell_transcript_v0\.8\.txt"):
        list(aishell.utterances(src, "train"))


def test_published_numbers_add_up():
    assert sum(count for count, _ in aishell.EXPECTED.values()) == 141600
