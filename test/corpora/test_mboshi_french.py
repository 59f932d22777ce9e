"""Mboshi-French: an independent reading of the same miniature, how dev is carved, and what is said of a broken copy."""

import hashlib
import itertools
from pathlib import Path

import pytest
import soundfile

from bilevel.corpora import MissingSplitError, mboshi_french
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.container import truncation
from bilevel.data.datadir import read_datadir
from bilevel.data.validate import validate
from bilevel.testing.mboshi_tree import SESSIONS, mboshi_tree

ODD = f"martial_{SESSIONS['martial']}_"


def contents(src, split):
    return {u.id: u for u in mboshi_french.utterances(src, split)}


def test_train_and_dev_divide_the_published_train_and_test_is_the_published_dev(tmp_path):
    src = mboshi_tree(tmp_path, n_train=400)
    rows = {split: contents(src, split) for split in mboshi_french.SETS}
    stems = {name: {path.stem for path in src.glob(f"full_corpus_newsplit/{name}/*.wav")} for name in ("train", "dev")}
    assert rows["mb_test"].keys() == stems["dev"]
    assert rows["mb_train"].keys() | rows["mb_dev"].keys() == stems["train"]
    assert not rows["mb_train"].keys() & rows["mb_dev"].keys()
    # A twentieth, give or take three standard deviations of 400 draws.
    assert len(rows["mb_dev"]) == pytest.approx(20, abs=3 * (400 * 0.05 * 0.95) ** 0.5)
    for key in rows["mb_dev"]:
        cleaned = (src / "full_corpus_newsplit/train" / f"{key}.mb.cleaned").read_text(encoding="utf-8").strip()
        assert int(hashlib.sha256(cleaned.encode()).hexdigest(), 16) % 20 == 0


def test_each_record_is_what_its_files_say(tmp_path):
    src = mboshi_tree(tmp_path)
    for split, folder in mboshi_french.FOLDERS.items():
        for key, u in contents(src, split).items():
            stem = src / "full_corpus_newsplit" / folder / key
            assert u.text == stem.with_name(f"{key}.mb").read_text(encoding="utf-8").strip()
            assert u.translations == {"fr": stem.with_name(f"{key}.fr").read_text(encoding="utf-8").strip()}
            # The STM is not read: it names the speaker in full, in its third field.
            assert stem.with_name(f"{key}.stm").read_text(encoding="utf-8").split()[2] == f"{u.speaker}_jean_claude"
            assert (u.audio, u.lang) == (f"{stem}.wav", "mb")
    assert {u.speaker for u in contents(src, "mb_test").values()} == set(SESSIONS)


def test_odd_entries(tmp_path):
    src = mboshi_tree(tmp_path, odd=True)
    rows = contents(src, "mb_train") | contents(src, "mb_dev")
    assert {key.removeprefix(ODD) for key in rows if "_80" in key} == {"801", "805", "806"}
    assert rows[f"{ODD}806"].text == "Ib\u00e9\u00e1 l\u00e1 m\u00e1a"
    faults = mboshi_french.missing(src, "mb_dev")
    assert faults[0] == f"files {ODD}802.fr, {ODD}803.mb, {ODD}804.wav"
    assert faults[1] == "train/ has 63 utterances, expected 4616 for mb_train and mb_dev together"
    # The header promises 726 bytes more; what there is is read.
    audio = Path(rows[f"{ODD}805"].audio)
    size = audio.stat().st_size
    assert truncation(audio).text == f"{size} bytes, but its header promises {size + 726}"
    assert len(soundfile.read(audio)[0]) == (size - 44) / 2


def test_a_sentence_said_twice_stays_on_one_side(tmp_path):
    src = mboshi_tree(tmp_path, odd=True)
    train = src / "full_corpus_newsplit" / "train"
    twin = min(train.glob("abiayi*.mb")).name.removesuffix(".mb")
    sides = set()
    for n in itertools.takewhile(lambda _: len(sides) < 2, range(200)):
        for key in (f"{ODD}801", twin):
            (train / f"{key}.mb.cleaned").write_text(f"mwána {n}\n", encoding="utf-8")
        found = contents(src, "mb_dev").keys()
        assert (f"{ODD}801" in found) == (twin in found)
        sides.add(twin in found)
    assert sides == {True, False}


def test_stage_1_keeps_translations_and_refuses_an_incomplete_folder(tmp_path, monkeypatch):
    src = mboshi_tree(tmp_path, odd=True)
    unknown = dict.fromkeys(mboshi_french.SETS, (None, None))
    monkeypatch.setattr(mboshi_french, "EXPECTED", unknown | {"mb_test": (6, None)})
    monkeypatch.setattr(mboshi_french, "PUBLISHED", {"train": 66, "dev": 6})
    wrong = r"mb_train: incomplete \(missing: files .*_802\.fr, .*_803\.mb, .*_804\.wav, train/ has 63 utterances, exp"
    with pytest.raises(ValueError, match=wrong):
        prepare("mboshi_french", src, ["mb_train"], tmp_path / "data")
    prepare("mboshi_french", src, ["mb_test"], tmp_path / "data")
    prepare("mboshi_french", src, ["mb_train"], tmp_path / "data", options=Options(allow_partial=True))
    assert len(read_datadir(tmp_path / "data/mb_test")) == 6
    for name in ("mb_train", "mb_test"):
        assert validate(tmp_path / "data" / name) == []
        for u in read_datadir(tmp_path / "data" / name):
            assert u.text == u.text.lower()
            assert u.translations["fr"][0].isupper()


def test_folders_and_refusals(tmp_path):
    src = mboshi_tree(tmp_path)
    assert contents(src / "full_corpus_newsplit", "mb_dev") == contents(src, "mb_dev")
    with pytest.raises(MissingSplitError, match=r"'mb_dev'; found: none; expected .*/full_corpus_newsplit/train/"):
        list(mboshi_french.utterances(tmp_path, "mb_dev"))
    with pytest.raises(ValueError, match=r"states no licence: read https://github.*, clone it to DIR, .*--src DIR"):
        prepare("mboshi_french", None, ["mb_train"], tmp_path / "data")
    broken = min((src / "full_corpus_newsplit/dev").glob("*.fr"))
    broken.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=rf"{broken.name}: .*expected UTF-8; fetch the file again"):
        list(mboshi_french.utterances(src, "mb_test"))
