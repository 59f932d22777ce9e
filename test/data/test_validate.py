"""One mutant directory a rule: exactly that rule is reported, and `fix` mends it where it can."""

import re
import shutil

import numpy as np
import pytest
import soundfile

from bilevel.bin.validate import main
from bilevel.data.datadir import read_datadir, write_datadir
from bilevel.data.fix import fix
from bilevel.data.record import Utterance
from bilevel.data.validate import validate


@pytest.fixture(scope="module")
def sound_dir(tmp_path_factory):
    """A sound directory with every table."""
    folder = tmp_path_factory.mktemp("sound")
    soundfile.write(folder / "x.wav", np.sin(np.arange(16000) / 9) / 2, 16000)
    rows = [
        Utterance(
            id=f"u{n}",
            audio=str(folder / "x.wav"),
            text=f"wort {n} élan",
            speaker=f"s{n % 2}",
            recording="rec",
            start_sec=n / 10,
            end_sec=n / 10 + 0.1,
            channel=0,
            speed=1.1,
            lang="de",
            source="lab",
            translations={"en": "word"},
        )
        for n in range(4)
    ]
    write_datadir(folder / "segmented", rows)
    whole = [Utterance(id=u.id, audio=u.audio, text=u.text, speaker=u.speaker) for u in rows]
    write_datadir(folder / "whole", whole)
    return folder


def edit(name, old, new, count=0):
    """A mutation by bytes; it must change something."""

    def change(path):
        data = (path / name).read_bytes()
        changed = re.sub(old, lambda _: new, data, count=count)
        assert changed != data
        (path / name).write_bytes(changed)

    return change


def lines(name, function):
    """A mutation by lines."""

    def change(path):
        rows = (path / name).read_text(encoding="utf-8").splitlines()
        (path / name).write_text("".join(row + "\n" for row in function(rows)), encoding="utf-8")

    return change


def remove(name):
    return lambda path: (path / name).unlink()


# name: (directory, mutation, file, expected reason, fixable)
MUTANTS = {
    "unsorted": ("whole", lines("text", lambda r: r[::-1]), "text", "unsorted: u2 after u3", True),
    "same_twice": ("whole", lines("text", lambda r: [r[0], *r]), "text", "duplicate of line 1: u0", True),
    "two_contents": ("whole", lines("text", lambda r: [r[0], "u0 anders", *r[1:]]), "text", "id u0 again", False),
    "crlf": ("whole", edit("text", b"\n", b"\r\n"), "text", "4 lines end in CRLF", True),
    "bom": ("whole", edit("utt2spk", b"^", b"\xef\xbb\xbf", 1), "utt2spk", "byte order mark", True),
    "no_newline": ("whole", edit("text", b"\n$", b"", 1), "text", "no newline", True),
    "not_nfc": ("whole", edit("text", "é".encode(), "e\u0301".encode(), 1), "text", "not in Unicode form NFC", True),
    "no_break_space": ("whole", edit("text", b"wort 0", "wort\u00a00".encode()), "text", r"U\+00A0", True),
    "zero_width": ("whole", edit("text", b"wort 0", "wort\u200b 0".encode()), "text", r"U\+200B", True),
    "tab": ("whole", edit("text", b"wort 0", b"wort\t0"), "text", r"U\+0009", True),
    "empty_text": ("whole", edit("text", b"(?m)^u0 .*$", b"u0"), "text", "u0: empty transcript", False),
    "pipe": ("whole", edit("wav.scp", b"(?m)^u0 .*$", b"u0 cat x.wav |"), "wav.scp", "a command", False),
    "missing_audio": (
        "whole",
        edit("wav.scp", b"(?m)^u0 .*$", b"u0 /no.wav"),
        "wav.scp",
        "no such file: /no.wav",
        False,
    ),
    "wav_fields": ("whole", edit("wav.scp", b"(?m)^u0 .*$", b"u0"), "wav.scp", "1 field, expected at least 2", False),
    "start_after_end": (
        "segmented",
        edit("segments", b"0.10* 0.20*", b"0.2 0.1"),
        "segments",
        "expected 0 <= start",
        False,
    ),
    "no_time": ("segmented", edit("segments", b"0.10* 0.20*", b"0.1 x"), "segments", "expected 0 <= start", False),
    "nan_time": ("segmented", edit("segments", b"0.10* 0.20*", b"0.1 nan"), "segments", "expected 0 <= start", False),
    "beyond_end": (
        "segmented",
        edit("segments", b"0.40*", b"9.4"),
        "segments",
        "u3: ends at 9.4 s, but rec at 1.000",
        False,
    ),
    "segment_fields": (
        "segmented",
        edit("segments", b"0.10* 0.20*", b"0.1"),
        "segments",
        "3 fields, expected 4",
        False,
    ),
    "lost_recording": ("segmented", edit("segments", b"u3 rec", b"u3 no"), "segments", "'no' is not in wav.scp", False),
    "dur_negative": ("whole", edit("utt2dur", b"u0 .*", b"u0 -1.0", 1), "utt2dur", "'-1.0', expected a positive", True),
    "dur_zero": ("whole", edit("utt2dur", b"u0 .*", b"u0 0", 1), "utt2dur", "'0', expected a positive", True),
    "dur_word": ("whole", edit("utt2dur", b"u0 .*", b"u0 long", 1), "utt2dur", "'long', expected a positive", True),
    "speed": ("segmented", edit("utt2speed", b"u0 .*", b"u0 0", 1), "utt2speed", "'0', expected a positive", False),
    "channel": ("segmented", edit("utt2channel", b"u0 .*", b"u0 -1", 1), "utt2channel", "channel '-1'", False),
    "lang_fields": ("segmented", edit("utt2lang", b"u0 .*", b"u0 de en", 1), "utt2lang", "3 fields, expected 2", False),
    "text_extra": ("whole", lines("text", lambda r: [*r, "u9 mehr"]), "text", "u9: not in wav.scp", False),
    "text_lacks": ("whole", lines("text", lambda r: r[1:]), "wav.scp", "u0: not in text", False),
    "utt2spk_lacks": (
        "segmented",
        lambda p: [lines("utt2spk", lambda r: r[1:])(p), fix(p)],
        "segments",
        "not in utt2spk",
        False,
    ),
    "dur_extra": ("whole", lines("utt2dur", lambda r: [*r, "u9 1.0"]), "utt2dur", "u9: not in wav.scp", False),
    "lang_extra": ("segmented", lines("utt2lang", lambda r: [*r, "u9 de"]), "utt2lang", "u9: not in segments", False),
    "spk2utt": (
        "whole",
        edit("spk2utt", b"s0 u0 u2", b"s0 u0"),
        "spk2utt",
        "s0: disagrees with utt2spk about u2",
        True,
    ),
    "no_spk2utt": ("whole", remove("spk2utt"), "spk2utt", "missing file", True),
    "no_utt2spk": ("whole", remove("utt2spk"), "utt2spk", "missing file", True),
    "translation_nfc": ("segmented", edit("text.en", b"word", "e\u0301".encode(), 1), "text.en", "NFC", True),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant(name, sound_dir, tmp_path):
    kind, mutate, file, reason, fixable = MUTANTS[name]
    path = tmp_path / "d"
    shutil.copytree(sound_dir / kind, path)
    assert validate(path) == []
    mutate(path)
    issues = validate(path)
    assert len(issues) == 1, issues
    assert issues[0].file == file
    assert re.search(reason, issues[0].reason), issues[0]
    assert issues[0].remedy
    assert issues[0].fixable == fixable
    damaged = (path / file).read_bytes() if (path / file).exists() else None
    notes = fix(path)
    if not fixable:
        assert validate(path) == issues
        return
    assert notes
    assert validate(path) == []
    assert fix(path) == []
    read_datadir(path)
    if damaged is not None:
        assert (path / ".backup" / "1" / file).read_bytes() == damaged


@pytest.mark.parametrize("bad", ["../../x", "/etc/x", "x" * 300, "-rf"])
def test_unsafe_ids(bad, sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    for name in ("wav.scp", "text", "utt2spk", "utt2dur", "spk2utt"):
        rows = (path / name).read_text().replace("u0", bad).splitlines()
        (path / name).write_text("".join(row + "\n" for row in sorted(rows)))
    fix(path)
    issues = validate(path)
    assert {i.file for i in issues} == {"wav.scp", "text", "utt2spk", "utt2dur"}
    assert all("unsafe id" in i.reason for i in issues), issues


def test_bad_bytes_are_located_and_never_rewritten(sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    edit("text", "2 é".encode(), b"2 \xe9")(path)
    before = (path / "text").read_bytes()
    fix(path)
    assert (path / "text").read_bytes() == before
    found = [i for i in validate(path) if i.file == "text"]
    assert [(i.line, i.fixable) for i in found] == [(3, False)]
    assert "0xe9 is not UTF-8" in found[0].reason


def test_missing_and_empty_files(sound_dir, tmp_path):
    assert [i.reason for i in validate(tmp_path / "none")] == ["no such directory"]
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    (path / "wav.scp").unlink()
    assert [(i.file, i.reason) for i in validate(path)] == [("wav.scp", "missing file")]
    (path / "wav.scp").write_text("")
    assert ("wav.scp", "the file is empty") in [(i.file, i.reason) for i in validate(path)]


def test_all_faults_are_reported_at_once(sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    for name in ("unsorted", "bom", "dur_word", "missing_audio"):
        MUTANTS[name][1](path)
    assert {i.file for i in validate(path)} == {"text", "utt2spk", "utt2dur", "wav.scp"}


def test_unlabelled_directories_are_sound_and_pipes_can_be_allowed(sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    (path / "text").unlink()
    assert validate(path) == []
    MUTANTS["pipe"][1](path)
    assert validate(path)
    assert validate(path, allow_pipes=True) == []


def test_drop_missing_keeps_what_is_complete(sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    for name in ("text_extra", "missing_audio"):
        MUTANTS[name][1](path)
    lines("utt2spk", lambda r: r[:3])(path)  # u3 goes
    notes = fix(path, drop_missing=True)
    assert [n.split("dropped ")[1] for n in notes if "dropped" in n] == ["u0", "u3", "u9"]
    assert validate(path) == []
    assert [u.id for u in read_datadir(path)] == ["u1", "u2"]


def test_second_backup_does_not_touch_the_first(sound_dir, tmp_path):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    for _ in range(2):
        MUTANTS["unsorted"][1](path)
        fix(path)
    assert sorted(p.name for p in (path / ".backup").iterdir()) == ["1", "2"]


def test_command(sound_dir, tmp_path, capsys):
    path = tmp_path / "d"
    shutil.copytree(sound_dir / "whole", path)
    main([str(path)])
    assert "sound" in capsys.readouterr().out
    MUTANTS["unsorted"][1](path)
    with pytest.raises(SystemExit) as stop:
        main([str(path)])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert "text:2: unsorted: u2 after u3 -> sort in the C locale [--fix]" in captured.out
    assert len(captured.err.splitlines()) == 1
    main([str(path), "--fix"])
    with pytest.raises(SystemExit) as stop:
        main([str(path), "--drop-missing"])
    assert stop.value.code == 2
