"""`bilevel score` and `bilevel compare` as a user calls them."""

import json
import subprocess
import sys

import pytest

from bilevel.bin import compare, score


@pytest.fixture
def files(tmp_path):
    texts = {
        "ref": "u1 the cat sat\nu2 a dog\nu3\nu4 birds fly\n",
        "a": "u1 the cat sat\nu2 a dig\nu3 uh\nu9 x\n",
        "b": "u1 the cat sat\nu2 a dog\nu3\nu4 birds fly\n",
        "utt2spk": "u1 s1\nu2 s1\nu3 s2\nu4 s2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_score_prints_and_writes(files, capsys):
    score.main([f"--ref={files / 'ref'}", f"--hyp={files / 'a'}", f"--utt2spk={files / 'utt2spk'}",
                f"--json={files / 'out' / 'score.json'}"])  # fmt: skip
    out = capsys.readouterr().out
    assert "WER 42.86 %" in out
    assert "1 missing hypotheses, counted as deletions: u4" in out
    assert "1 hypotheses without reference, ignored: u9" in out
    assert "1 empty references, counted apart: 1 insertions" in out
    assert "worst 2 of 2 speakers" in out
    record = json.loads((files / "out" / "score.json").read_text())
    assert record["value"] == pytest.approx(3 / 7)
    assert record["utterances"]["u4"][1:] == [2, 0, 2, 0]


def test_compare_two_files_and_two_folders(files, capsys):
    for name in "ab":
        score.main([f"--ref={files / 'ref'}", f"--hyp={files / name}", f"--json={files / f'score_{name}.json'}"])
        folder = files / f"exp_{name}" / "decode_ctc" / "dev"
        score.main([f"--ref={files / 'ref'}", f"--hyp={files / name}", f"--json={folder / 'score_wer.json'}"])
    capsys.readouterr()
    compare.main([str(files / "score_a.json"), str(files / "score_b.json"), f"--json={files / 'c.json'}"])
    assert "-42.86" in capsys.readouterr().out
    assert json.loads((files / "c.json").read_text())["score_a"]["difference"] == pytest.approx(-3 / 7)
    compare.main([str(files / "exp_a"), str(files / "exp_b")])
    assert "decode_ctc/dev" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"no score_cer\.json at the same place"):
        compare.main([str(files / "exp_a"), str(files / "exp_b"), "--metric=cer"])
    with pytest.raises(ValueError, match="no such file or folder"):
        compare.main([str(files / "exp_a"), str(files / "exp_c")])


def test_refusal_is_one_line(files):
    (files / "ref").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "bilevel.bin.score", "--ref", files / "ref", "--hyp", files / "a"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        "error: zero utterances to score: the reference is empty; check the reference file"
    ]
