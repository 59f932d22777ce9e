"""Length limits, empty transcripts, overlap between training and evaluation."""

import json

import numpy as np
import pytest
import soundfile

from bilevel.bin.filter import main
from bilevel.data.datadir import write_datadir
from bilevel.data.filter import drop_unusable, read_dump, unknown_characters, write_dump
from bilevel.data.format import FormatConfig, format_datadir
from bilevel.data.overlap import find_overlap
from bilevel.data.perturb import perturb_datadir
from bilevel.data.record import Utterance
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate

RATE_HZ = 16000


def sound(tmp_path, seed, n_samples=8000, suffix="wav"):
    path = tmp_path / f"{seed}-{n_samples}.{suffix}"
    samples = np.random.default_rng(seed).integers(-9000, 9000, n_samples).astype(np.int16)
    soundfile.write(path, samples, RATE_HZ)
    return str(path)


def dump(tmp_path, name, rows, config=FormatConfig()):  # noqa: B008 (frozen)
    write_datadir(tmp_path / "data" / name, rows)
    format_datadir(tmp_path / "data" / name, tmp_path / "org" / name, config)
    return read_dump(tmp_path / "org" / name)


@pytest.mark.parametrize("feats_type", ["raw", "fbank"])
def test_lengths_and_empty_text(tmp_path, feats_type):
    rows = [
        Utterance("empty", sound(tmp_path, 0), "", "s"),
        Utterance("good", sound(tmp_path, 1), "yes", "s"),
        Utterance("long", sound(tmp_path, 2, 40000), "no", "t"),
        Utterance("short", sound(tmp_path, 3, 1600), "no", "t"),
    ]
    found = dump(tmp_path, "train", rows, FormatConfig(feats_type=feats_type))
    drop_unusable(found, min_sec=0.1, max_sec=2.0, labelled=True)
    write_dump(found, tmp_path / "out")
    assert found.ids == ["good"]
    assert (tmp_path / "out" / "dropped.tsv").read_text().splitlines() == [
        "empty\tempty transcript",
        "long\t2.500 s, expected less than 2 s",
        "short\t0.100 s, expected more than 0.1 s",
    ]
    kept = {"raw": "wav.scp", "fbank": "feats.scp"}[feats_type]
    for name in (kept, "text", "utt2spk", "utt2dur"):
        assert list(read_scp(tmp_path / "out" / name)) == ["good"]
    assert (tmp_path / "out" / "spk2utt").read_text() == "s good\n"
    assert (tmp_path / "out" / "feats_type").read_text() == feats_type + "\n"
    if feats_type == "raw":
        assert validate(tmp_path / "out") == []


def test_unlabelled_sets_keep_empty_utterances_and_no_text(tmp_path):
    rows = [Utterance("a", sound(tmp_path, 0), "", "s"), Utterance("b", sound(tmp_path, 1), "x", "s")]
    found = dump(tmp_path, "unlab", rows)
    drop_unusable(found, min_sec=0.1, max_sec=2.0, labelled=False)
    assert found.ids == ["a", "b"]
    assert "text" not in found.tables


def test_refusals(tmp_path):
    found = dump(tmp_path, "train", [Utterance("a", sound(tmp_path, 0), "x"), Utterance("b", sound(tmp_path, 1), "y")])
    with pytest.raises(ValueError, match=r"all 2 utterances dropped, a: 0\.500 s"):
        drop_unusable(found, min_sec=1.0, max_sec=2.0, labelled=True)
    unlabelled = dump(tmp_path, "unlab", [Utterance("a", sound(tmp_path, 0))])
    with pytest.raises(ValueError, match=r"no file text.*--unlabelled_sets"):
        drop_unusable(unlabelled, min_sec=0.1, max_sec=2.0, labelled=True)
    with pytest.raises(ValueError, match="run stage 3"):
        read_dump(tmp_path / "data" / "train")


def test_kinds_of_overlap(tmp_path):
    train = dump(
        tmp_path,
        "train",
        [
            Utterance("s1-a", sound(tmp_path, 0), "good day", "s1"),
            Utterance("s1-b", sound(tmp_path, 1), "good night", "s1"),
            Utterance("s1-c", sound(tmp_path, 2), "unique", "s1"),
        ],
    )
    test = dump(
        tmp_path,
        "test",
        [
            Utterance("s1-a", sound(tmp_path, 10), "other", "s1"),
            Utterance("s1-x", sound(tmp_path, 11), "good night", "s1"),
            Utterance("s2-c", sound(tmp_path, 2, suffix="flac"), "different", "s2"),
            Utterance("s2-y", sound(tmp_path, 12), "good night", "s2"),
        ],
    )
    found = find_overlap([train], test)
    assert found.same_id == (("s1-a", "s1-a"),)
    assert found.same_audio == (("s2-c", "s1-c"),), "the same samples in another container"
    assert found.same_text_speaker == (("s1-x", "s1-b"),)
    assert found.counts() == {"same_id": 1, "same_audio": 1, "same_text_speaker": 1}
    assert find_overlap([train], test, nj=2) == found


def test_overlap_of_features(tmp_path):
    config = FormatConfig(feats_type="fbank")
    train = dump(tmp_path, "train", [Utterance("a", sound(tmp_path, 0), "x", "s")], config)
    test = dump(tmp_path, "test", [Utterance("b", sound(tmp_path, 0, suffix="flac"), "y", "t")], config)
    assert find_overlap([train], test).counts() == {"same_id": 0, "same_audio": 1, "same_text_speaker": 0}


def test_perturbed_copies_count_as_their_original(tmp_path):
    write_datadir(tmp_path / "data" / "plain", [Utterance("s-a", sound(tmp_path, 0), "x", "s")])
    perturb_datadir(tmp_path / "data" / "plain", tmp_path / "data" / "train_sp", (0.9,))
    format_datadir(tmp_path / "data" / "train_sp", tmp_path / "org" / "train_sp", FormatConfig())
    test = dump(tmp_path, "test", [Utterance("s-a", sound(tmp_path, 0), "x", "s")])
    found = find_overlap([read_dump(tmp_path / "org" / "train_sp")], test)
    assert found.same_id == (("s-a", "sp0.9-s-a"),)
    assert found.same_text_speaker == (("s-a", "sp0.9-s-a"),)


def test_unknown_characters():
    assert unknown_characters(set("ab "), {"x": "a b", "y": "ç"}) == (0.25, "ç")
    assert unknown_characters(set(), {}) == (0.0, "")


def sets(tmp_path):
    dump(tmp_path, "train", [Utterance("s-a", sound(tmp_path, 0), "good day", "s")])
    dump(
        tmp_path,
        "test",
        [Utterance("s-b", sound(tmp_path, 1), "good day", "s"), Utterance("e", sound(tmp_path, 2), "")],
    )
    return [
        "--in_dir", str(tmp_path / "org"), "--out_dir", str(tmp_path / "dump"),
        "--train_sets", "train", "--test_sets", "test",
    ]  # fmt: skip


def test_command(tmp_path, capsys):
    argv = sets(tmp_path)
    with pytest.raises(ValueError, match=r"test: s-b is s-a.*--allow_overlap"):
        main(argv)
    assert not (tmp_path / "dump").exists(), "nothing is written when a set is refused"
    main([*argv, "--same_text", "warn"])
    assert "unknown characters 0.00%" in capsys.readouterr().out
    report = json.loads((tmp_path / "dump" / "test" / "overlap.json").read_text())
    assert report == {
        "train_sets": ["train"], "same_id": 0, "same_audio": 0, "same_text_speaker": 1,
        "overlap_allowed": False, "unknown_character_rate": 0.0,
    }  # fmt: skip
    assert list(read_scp(tmp_path / "dump" / "test" / "text")) == ["e", "s-b"], "test sets stay whole"
    main([*argv, "--same_text", "warn"])
    assert "skip: " in capsys.readouterr().out
    main([*argv, "--allow-overlap"])
    assert "skip" not in capsys.readouterr().out
