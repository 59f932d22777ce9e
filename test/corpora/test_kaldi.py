"""One's own data: every form of a source folder, and what is refused."""

import json

import pytest

from bilevel.corpora import MissingSplitError, kaldi
from bilevel.testing.trees import kaldi_tree


@pytest.fixture
def src(tmp_path):
    return kaldi_tree(tmp_path)


def summary(src, split):
    return sorted((u.id, u.text, u.speaker, u.audio) for u in kaldi.utterances(src, split))


def test_all_forms_give_the_same_records(src, tmp_path):
    expected = summary(src, "dev")
    assert [row[0] for row in expected] == ["dev-0", "dev-1", "dev-2"]
    assert all(row[3] == str(src / "audio" / f"{row[0]}.wav") for row in expected)

    folder = tmp_path / "nested" / "dev"
    folder.mkdir(parents=True)
    (folder / "wav.scp").write_text("".join(f"{key} {audio}\n" for key, _, _, audio in expected))
    (folder / "text").write_text("".join(f"{key} {text}\n" for key, text, _, _ in expected))
    (folder / "utt2spk").write_text("".join(f"{key} {speaker}\n" for key, _, speaker, _ in expected))
    assert summary(folder.parent, "dev") == expected

    # A BOM and CRLF, as spreadsheets write them; audio relative to the manifest.
    manifest = tmp_path / "own" / "more.tsv"
    rows = ["speaker\tid\taudio\ttext", *(f"{s}\t{key}\taudio/{key}.wav\t{text}" for key, text, s, _ in expected)]
    manifest.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    assert summary(src, "more") == expected

    lines = [{"id": key, "audio": audio, "text": text, "speaker": s} for key, text, s, audio in expected]
    (src / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert summary(src, "lines") == expected


def test_a_data_directory_without_lists_is_the_split_all(src):
    for path in src.glob("*.list"):
        path.unlink()
    assert kaldi.splits(src) == ["all"]
    assert len(summary(src, "all")) == 9


def test_manifest_segments_and_optional_columns(src):
    (src / "talk.jsonl").write_text(
        '{"id": "a", "audio": "audio/dev-0.wav", "start": 0.1, "end": 0.25, "lang": "de", "source": "radio"}\n'
        '{"id": "b", "audio": "audio/dev-0.wav", "start": 0.25, "end": 0.4}\n'
        '{"id": "c", "audio": "audio/dev-1.wav"}\n'
    )
    a, b, c = kaldi.utterances(src, "talk")
    assert (a.start_sec, a.end_sec, a.lang, a.source, a.text) == (0.1, 0.25, "de", "radio", None)
    assert a.recording == b.recording
    assert a.recording.startswith("dev_0-")
    assert (c.recording, c.start_sec) == (None, None)


def test_missing_split_lists_those_found(src):
    with pytest.raises(MissingSplitError, match=r"no split 'valid'; found: dev, test, train"):
        list(kaldi.utterances(src, "valid"))


def test_pipes_are_refused_and_never_run(src):
    scp = (src / "wav.scp").read_text()
    (src / "wav.scp").write_text(scp.replace("audio/dev-1.wav", f"touch {src}/PWNED; cat audio/dev-1.wav |"))
    with pytest.raises(ValueError, match=r"commands instead of files in wav.scp for dev-1"):
        list(kaldi.utterances(src, "dev"))
    assert not (src / "PWNED").exists()


def test_listed_id_without_audio(src):
    (src / "dev.list").write_text("dev-0\ndev-77\n")
    with pytest.raises(ValueError, match=r"dev\.list: ids without audio.*dev-77"):
        list(kaldi.utterances(src, "dev"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\taudio\tspeeker\na\tb\tc\n", r"m\.tsv:2: unknown column 'speeker'; the nearest one is 'speaker'"),
        ("id\taudio\na\tb\tc\n", r"m\.tsv:2: 3 columns, expected 2"),
        ("id\ttext\na\tb\n", r"m\.tsv:2: expected at least the columns id and audio"),
        ("id\taudio\n../../x\tb\n", r"m\.tsv:2: utterance id '../../x'"),
        ("id\taudio\tstart\na\tb\t1\n", r"m\.tsv:2: .*segment needs"),
        ("id\taudio\tstart\tend\na\tb\tone\t2\n", r"m\.tsv:2: could not convert"),
        ("id\taudio\ttext\na\tb\t\xe9\n".encode("latin-1"), r"m\.tsv:2: byte 0xe9 is not UTF-8"),
    ],
)
def test_broken_manifests_name_file_and_line(src, content, message):
    (src / "m.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        list(kaldi.utterances(src, "m"))


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[1]", "list found, expected a JSON object")])
def test_broken_json_lines(src, line, message):
    (src / "m.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"m\.jsonl:1: {message}"):
        list(kaldi.utterances(src, "m"))
