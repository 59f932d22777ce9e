"""Data directories: round trip, order, tolerance, refusals, the swap."""

import os
import random
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bilevel.data.datadir import read_datadir, write_datadir
from bilevel.data.record import Utterance
from bilevel.data.swap import atomic_dir
from bilevel.data.tables import read_scp


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "audio" / "one two.wav"
    path.parent.mkdir()
    soundfile.write(path, np.full(1600, 0.1), 16000)
    return str(path)


def make(wav, key, **kwargs):
    return Utterance(**{"id": key, "audio": wav, "text": f"text of {key}", "speaker": "s1"} | kwargs)


def test_round_trip_of_every_field(tmp_path, wav):
    rows = [
        make(wav, "a", recording="r", start_sec=0.01, end_sec=0.05, lang="de", source="lab", channel=1, speed=0.9),
        make(wav, "b", recording="r", start_sec=0.05, end_sec=0.1, speaker="s2", translations={"pt-BR": "olá"}),
    ]
    write_datadir(tmp_path / "d", reversed(rows))
    assert read_datadir(tmp_path / "d") == rows
    assert (tmp_path / "d" / "utt2dur").read_text() == "a 0.044444\nb 0.050000\n"


def test_c_locale_order_and_files_of_an_unlabelled_set(tmp_path, wav):
    keys = ["a", "B", "é", "a-1", "a.1", "Z9", "10", "9"]
    write_datadir(tmp_path / "d", [make(wav, key, text=None) for key in keys])
    names = (tmp_path / "d" / "wav.scp").read_bytes().splitlines()
    assert [name.split()[0] for name in names] == sorted(key.encode() for key in keys)
    assert sorted(os.listdir(tmp_path / "d")) == ["spk2utt", "utt2dur", "utt2spk", "wav.scp"]
    assert all(u.text is None for u in read_datadir(tmp_path / "d"))


def test_random_sets_survive_the_round_trip(tmp_path, wav):
    rng = random.Random(1)
    alphabet = "abcäß漢 \u00a0\u200b'<>"
    for _ in range(20):
        rows = {}
        for _ in range(rng.randint(1, 30)):
            key = "".join(rng.choices("abAB019_-.", k=rng.randint(1, 8))).strip("-") or "x"
            text = "".join(rng.choices(alphabet, k=rng.randint(0, 12))).strip()
            if ".." not in key:
                rows[key] = make(wav, key, text=text, speaker=rng.choice("xyz"))
        rows = rows or {"x": make(wav, "x")}
        write_datadir(tmp_path / "d", rows.values())
        assert read_datadir(tmp_path / "d") == [rows[key] for key in sorted(rows)]


def test_duplicates(tmp_path, wav, capsys):
    write_datadir(tmp_path / "d", [make(wav, "a"), make(wav, "a")])
    assert "1 identical duplicates dropped" in capsys.readouterr().out
    clashes = [make(wav, key, text=text) for key in ("a", "b") for text in ("x", "y")]
    with pytest.raises(ValueError, match="two different contents: a, b"):
        write_datadir(tmp_path / "d", clashes)
    assert [u.id for u in read_datadir(tmp_path / "d")] == ["a"], "the earlier directory must stay"


def test_refusals_of_the_writer(tmp_path, wav):
    with pytest.raises(ValueError, match="not one utterance"):
        write_datadir(tmp_path / "d", [])
    with pytest.raises(ValueError, match="audio without text: b"):
        write_datadir(tmp_path / "d", [make(wav, "a"), make(wav, "b", text=None)])
    with pytest.raises(ValueError, match="line break"):
        write_datadir(tmp_path / "d", [make(wav, "a", text="x\ny")])
    for odd in ("x\n.wav", " x.wav", "x.wav ", ""):
        with pytest.raises(ValueError, match=r"wav\.scp cannot hold it"):
            write_datadir(tmp_path / "d", [make(odd, "a")])
    with pytest.raises(ValueError, match="two audio files"):
        write_datadir(tmp_path / "d", [make(f, f, recording="r", start_sec=0, end_sec=1) for f in "ab"])
    assert sorted(os.listdir(tmp_path)) == ["audio"], "nothing may be left behind"


def test_whole_files_beside_segments_get_a_segment(tmp_path, wav):
    write_datadir(tmp_path / "d", [make(wav, "a"), make(wav, "b", recording="r", start_sec=0, end_sec=0.02)])
    assert (tmp_path / "d" / "segments").read_text().splitlines()[0] == "a a 0.000000 0.100000"


def test_extra_files_survive_and_stale_tables_go(tmp_path, wav):
    path = tmp_path / "d"
    write_datadir(path, [make(wav, "a", lang="de")])
    (path / ".done").mkdir()
    (path / ".done" / "x.json").write_text("{}")
    (path / "NOTES").write_text("mine")
    write_datadir(path, [make(wav, "a")])
    assert (path / ".done" / "x.json").read_text() == "{}"
    assert (path / "NOTES").read_text() == "mine"
    assert not (path / "utt2lang").exists()
    assert sorted(os.listdir(tmp_path)) == ["audio", "d"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_within_the_swap_is_healed(tmp_path, moved):
    old, path = tmp_path / ".d.old", tmp_path / "d"
    old.mkdir()
    (old / "NOTES").write_text("mine")
    (old / "text").write_text("old")
    if moved:
        path.mkdir()
        (path / "text").write_text("new")
    with atomic_dir(path, lambda name: name == "text") as folder:
        (folder / "text").write_text("newer")
    assert (path / "NOTES").read_text() == "mine"
    assert (path / "text").read_text() == "newer"
    assert os.listdir(tmp_path) == ["d"]


def test_failure_leaves_the_directory_alone(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "text").write_text("old")
    with pytest.raises(OSError, match="No space"), atomic_dir(tmp_path / "d", lambda _: True):
        raise OSError(28, "No space left")
    assert (tmp_path / "d" / "text").read_text() == "old"
    assert os.listdir(tmp_path) == ["d"]


def test_reader_tolerates_bom_crlf_tabs_and_a_missing_newline(tmp_path):
    (tmp_path / "text").write_bytes("\ufeffa  x y \r\n\r\nb\tc\u00a0d\r\nc\na  x y ".encode())
    assert read_scp(tmp_path / "text") == {"a": "x y", "b": "c\u00a0d", "c": ""}


def test_reader_names_file_and_line_of_bad_bytes_and_of_clashes(tmp_path):
    (tmp_path / "text").write_bytes(b"a x\nb caf\xe9\n")
    with pytest.raises(ValueError, match=r"text:2: byte 0xe9 is not UTF-8.*iconv"):
        read_scp(tmp_path / "text")
    (tmp_path / "text").write_text("a x\nb x\na y\nb y\n")
    with pytest.raises(ValueError, match=r"a \(line 3\), b \(line 4\)"):
        read_scp(tmp_path / "text")


def test_one_sided_ids_are_listed_in_full(tmp_path, wav):
    write_datadir(tmp_path / "d", [make(wav, key) for key in "ab"])
    (tmp_path / "d" / "text").write_text("a x\nc x\nd x\n")
    with pytest.raises(ValueError, match=r"text without audio: c, d.*--drop_missing"):
        read_datadir(tmp_path / "d")
    (tmp_path / "d" / "text").write_text("a x\n")
    with pytest.raises(ValueError, match="audio without text: b"):
        read_datadir(tmp_path / "d")
    (tmp_path / "d" / "segments").write_text("a nowhere 0 1\n")
    with pytest.raises(ValueError, match=r"not in wav\.scp: nowhere"):
        read_datadir(tmp_path / "d")
    (tmp_path / "d" / "segments").write_text("a a 0\n")
    with pytest.raises(ValueError, match="segments: a: expected"):
        read_datadir(tmp_path / "d")


def test_relative_paths_lead_first_into_the_directory(tmp_path, wav, monkeypatch):
    path = tmp_path / "d"
    write_datadir(path, [replace(make(wav, "a"), audio="x.wav"), replace(make(wav, "b"), audio="y.wav")])
    (path / "x.wav").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert [u.audio for u in read_datadir(path)] == [str(path / "x.wav"), "y.wav"]


def test_text_orig_is_no_translation(tmp_path, wav):
    write_datadir(tmp_path / "d", [make(wav, "a", translations={"de": "x"})])
    (tmp_path / "d" / "text.orig").write_text("a Y\n")
    assert dict(read_datadir(tmp_path / "d")[0].translations) == {"de": "x"}
