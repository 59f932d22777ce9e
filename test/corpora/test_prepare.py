"""Stage 1 as a whole: sets, text, counts, pools, and the command."""

import subprocess
import sys

import pytest

from bilevel.bin.data import main
from bilevel.corpora import librispeech, tedlium
from bilevel.corpora.prepare import Options, Pool, _inventory, prepare
from bilevel.data.datadir import read_datadir
from bilevel.testing.trees import fsdd_tree, kaldi_tree, librispeech_tree, tedlium_tree

PARTIAL = Options(allow_partial=True)


@pytest.fixture
def own(tmp_path):
    return kaldi_tree(tmp_path)


def test_sets_are_written_in_normal_form(own, tmp_path):
    (own / "text").write_text((own / "text").read_text().upper().replace("TRAIN-", "train-").replace("DEV-", "dev-")
                              .replace("TEST-", "test-").replace("\n", " !\n"))  # fmt: skip
    prepare("kaldi", own, ["train", "dev"], tmp_path / "data", unlabelled_sets=["train"])
    dev = read_datadir(tmp_path / "data" / "dev")
    assert [u.id for u in dev] == ["dev-0", "dev-1", "dev-2"]
    assert all(u.text == u.text.lower() and "!" not in u.text for u in dev)
    assert all(u.audio == str(own / "audio" / f"{u.id}.wav") for u in dev)
    assert {u.text for u in read_datadir(tmp_path / "data" / "train")} == {None}


def test_relative_source_gives_absolute_audio(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare("kaldi", own.relative_to(tmp_path), ["dev"], tmp_path / "data")
    assert read_datadir(tmp_path / "data" / "dev")[0].audio == str(own / "audio" / "dev-0.wav")


def test_second_call_skips_and_a_changed_source_does_not(own, tmp_path, capsys):
    arguments = ("kaldi", own, ["dev"], tmp_path / "data")
    prepare(*arguments)
    before = (tmp_path / "data" / "dev" / "text").stat().st_mtime_ns
    capsys.readouterr()
    prepare(*arguments)
    assert "skip:" in capsys.readouterr().out
    assert (tmp_path / "data" / "dev" / "text").stat().st_mtime_ns == before
    (own / "dev.list").write_text("dev-1\n")
    prepare(*arguments)
    assert [u.id for u in read_datadir(tmp_path / "data" / "dev")] == ["dev-1"]


def test_skip_notices_a_new_chapter(tmp_path):
    src = librispeech_tree(tmp_path, splits=["dev-clean"], n_speakers=2)
    (src / "dev-clean" / "26").rename(tmp_path / "later")
    arguments = ("librispeech", src, ["dev_clean"], tmp_path / "data", tmp_path, (), None, PARTIAL)
    prepare(*arguments)
    (tmp_path / "later").rename(src / "dev-clean" / "26")
    prepare(*arguments)
    assert len(read_datadir(tmp_path / "data" / "dev_clean")) == 8


def test_skip_notices_what_changes_behind_links_even_in_a_circle(tmp_path):
    src, real = tmp_path / "src", tmp_path / "elsewhere"
    (real / "wav").mkdir(parents=True)
    src.mkdir()
    (src / "corpus").symlink_to(real)
    (real / "wav" / "back").symlink_to(src)
    before = _inventory(src)
    (real / "wav" / "new").mkdir()
    (real / "wav" / "new" / "a.wav").touch()
    assert _inventory(src) != before


def test_wrong_count_names_what_is_missing(tmp_path, monkeypatch):
    src = librispeech_tree(tmp_path, splits=["dev-clean"], n_speakers=2)
    monkeypatch.setattr(librispeech, "EXPECTED", {"dev-clean": (8, None)})
    prepare("librispeech", src, ["dev_clean"], tmp_path / "whole")
    (src / "dev-clean" / "26").rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"dev-clean: 4 utterances, expected 8 \(missing: speakers .*: 26\); "
                                         r"complete .*, or continue with --allow_partial"):  # fmt: skip
        prepare("librispeech", src, ["dev_clean"], tmp_path / "data")
    assert not (tmp_path / "data" / "dev_clean").exists()
    prepare("librispeech", src, ["dev_clean"], tmp_path / "data", options=PARTIAL)
    assert len(read_datadir(tmp_path / "data" / "dev_clean")) == 4


@pytest.mark.parametrize(
    ("factor", "wrong"), [(1.0, False), (1.008, False), (0.992, False), (1.02, True), (0.98, True)]
)
def test_hours_within_one_percent(tmp_path, monkeypatch, factor, wrong):
    src = tedlium_tree(tmp_path)
    rows = list(tedlium.utterances(src, "dev"))
    hours = sum(u.end_sec - u.start_sec for u in rows) / 3600
    monkeypatch.setattr(tedlium, "EXPECTED", {"dev": (len(rows), round(hours * factor, 9))})
    monkeypatch.setattr(tedlium, "HOURS_TOLERANCE", 0.01)
    if wrong:
        with pytest.raises(ValueError, match=r"dev: .* h, expected"):
            prepare("tedlium", src, ["dev"], tmp_path / "data")
    else:
        prepare("tedlium", src, ["dev"], tmp_path / "data")


def test_missing_split_of_a_combination(tmp_path):
    src = librispeech_tree(tmp_path, splits=["train-clean-100", "train-clean-360"], n_speakers=1)
    # All that is wrong, at once.
    with pytest.raises(ValueError, match=r"train-clean-360: 4 utterances, expected 104014.*no split 'train-other-500'; "
                                         r"found: train-clean-100, train-clean-360"):  # fmt: skip
        prepare("librispeech", src, ["train_860"], tmp_path / "data", options=Options())
    with pytest.raises(ValueError, match="no split 'dev-clean'"):
        prepare("librispeech", src, ["dev_clean"], tmp_path / "data", options=PARTIAL)
    prepare("librispeech", src, ["train_960"], tmp_path / "data", options=PARTIAL)
    assert len(read_datadir(tmp_path / "data" / "train_960")) == 8


def test_segments_survive(tmp_path):
    src = tedlium_tree(tmp_path, odd=True)
    prepare("tedlium", src, ["dev"], tmp_path / "data", options=PARTIAL)
    written = {u.id: (u.start_sec, u.end_sec, u.recording) for u in read_datadir(tmp_path / "data" / "dev")}
    assert written["Odd_2010-0000120-0000198"] == (1.2, 1.98, "Odd_2010")


def test_pool_is_divided(own, tmp_path):
    pool = Pool("train", 0.4, "lab", "unlab", seed=1)
    prepare("kaldi", own, ["dev"], tmp_path / "data", pool=pool)
    labelled, rest = read_datadir(tmp_path / "data" / "lab"), read_datadir(tmp_path / "data" / "unlab")
    assert sorted(u.id for u in [*labelled, *rest]) == ["train-0", "train-1", "train-2"]
    assert all(u.text for u in labelled)
    assert all(u.text is None for u in rest)
    assert not (tmp_path / "data" / "train").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sets", "valid"], "no split 'valid'; found: dev, test, train"),
        (["--sets", "dev", "--unlabelled_sets", "train"], "not among the sets"),
        (["--sets", "dev", "--pool_set", "train"], "go together"),
        (
            ["--pool_set", "train", "--labelled_share", ".5", "--labelled_set", "dev", "--unlabelled_set", "u"],
            "new names",
        ),
        (
            ["--pool_set", "train", "--labelled_share", "2", "--labelled_set", "l", "--unlabelled_set", "u"],
            "above 0 and at most 1",
        ),
    ],
)
def test_refusals(own, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["--corpus", "kaldi", "--src", str(own), "--data_dir", str(tmp_path / "data"), *arguments])


def test_unknown_set_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no set 'train_96'; the nearest one is 'train_960'"):
        main(["--corpus", "librispeech", "--src", str(tmp_path), "--sets", "train_96"])


def test_no_source_and_nothing_to_download(tmp_path):
    with pytest.raises(ValueError, match="kaldi is not downloaded; give its folder as --src"):
        main(["--corpus", "kaldi", "--data_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="no such folder"):
        main(["--corpus", "kaldi", "--src", str(tmp_path / "none"), "--data_dir", str(tmp_path)])


def test_unreadable_audio_is_noted_and_all_unreadable_refused(own, tmp_path, capsys):
    (own / "audio" / "dev-1.wav").write_bytes(b"<html>")
    prepare("kaldi", own, ["dev"], tmp_path / "data")
    assert "1 of 3 audio files do not open" in capsys.readouterr().out
    for path in (own / "audio").glob("dev-*.wav"):
        path.unlink()
    (own / "dev.list").write_text("dev-0\n")
    with pytest.raises(ValueError, match=r"no audio file opens, for instance .*dev-0"):
        prepare("kaldi", own, ["dev"], tmp_path / "again")


def test_command_line(tmp_path):
    src = fsdd_tree(tmp_path)
    command = [sys.executable, "-m", "bilevel.bin.data", "--corpus", "fsdd", "--src", src, "--data-dir", tmp_path / "d"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: train: 20 utterances, expected 2400")
    assert len(refused.stderr.splitlines()) == 1
    done = subprocess.run([*command, "--allow_partial"], capture_output=True, text=True, check=True)
    assert "test: 20 utterances with text, 2 speakers" in done.stdout
    assert (tmp_path / "d" / "train" / "utt2dur").read_text().count("\n") == 20


def test_no_torch_at_import():
    code = "import sys, bilevel.bin.data, bilevel.corpora.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
