"""`bilevel score`, `bilevel compare` and `bilevel evaluate` as a user calls them."""

import json
import subprocess
import sys

import pytest

from bilevel.bin import compare, evaluate, score
from bilevel.data.commit import commit
from bilevel.scoring import bleu
from bilevel.scoring.result import Score


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


def test_bleu_of_two_files_and_which_is_better(files, capsys):
    write = {"worse": "u1 the cat sits\nu2 dog\nu3\nu4 birds\n", "other": "u1 the cat sat\nu2 a dog\nu3\n"}
    for name, text in write.items():
        (files / name).write_text(text, encoding="utf-8")
    for name in ("worse", "b"):
        score.main([f"--ref={files / 'ref'}", f"--hyp={files / name}", "--metric=bleu", "--tokenize=char",
                    f"--json={files / f'exp_{name}' / 'decode' / 'dev' / 'score_bleu.json'}"])  # fmt: skip
    out = capsys.readouterr().out
    assert "BLEU 100.00   95 % interval 100.00 .. 100.00" in out
    assert "|tok:char|" in out
    compare.main([str(files / "exp_worse"), str(files / "exp_b"), "--metric=bleu", f"--json={files / 'c.json'}"])
    out = capsys.readouterr().out
    assert "100.00" in out
    assert " %" not in out.replace("95 % interval", "")
    found = json.loads((files / "c.json").read_text())["decode/dev"]
    assert found["metric"] == "bleu"
    assert found["difference"] == pytest.approx(100 - found["value_a"])
    with pytest.raises(ValueError, match="1 utterances without hypothesis, such as u4"):
        score.main([f"--ref={files / 'ref'}", f"--hyp={files / 'other'}", "--metric=bleu"])
    for option in ("--metric=bleu --punctuation=keep", "--metric=wer --tokenize=zh", "--metric=chrf --tokenize=zh"):
        with pytest.raises(ValueError, match="is no option of --metric"):
            score.main([f"--ref={files / 'ref'}", f"--hyp={files / 'b'}", *option.split()])


def test_evaluate_writes_the_metrics_asked_for(files, capsys):
    exp, data = files / "exp", files / "dump" / "test_en"
    (exp / "decode" / "test_en").mkdir(parents=True)
    data.mkdir(parents=True)
    (data / "text").write_text("u1 The cat sat.\nu2 A dog, a dog!\n", encoding="utf-8")
    (exp / "decode" / "test_en" / "text").write_text("u1 the cat sat\nu2 A dog, a dog!\n", encoding="utf-8")
    facts = {"method": "m", "corpus": "c", "seed": 0, "config_sha256": "0", "commit": "0trained"}
    (exp / "run.json").write_text(json.dumps(facts))
    (exp / "cost.json").write_text(json.dumps({"params": 1}))
    call = [f"--exp_dir={exp}", "--inference_config=decode.yaml", f"--dirs={data}"]
    lists = {"u1": "The cat sat.", "u2": "A dog, a dog!"}, {"u1": "the cat sat", "u2": "A dog, a dog!"}
    for options, expected in (
        ("", {"wer": 0, "cer": 0}),
        ("--metrics bleu cer chrf", {"bleu": bleu.score(*lists).value, "cer": 0,
                                     "chrf": bleu.score(*lists, metric="chrf").value}),
        ("--metrics bleu --tokenize char --bleu_case lower",
         {"bleu": bleu.score(*lists, tokenize="char", case="lower").value}),
    ):  # fmt: skip
        evaluate.main([*call, *options.split()])
        result = json.loads((exp / "result.json").read_text())
        assert result["commit"] == f"0trained, {commit()}"
        results = result["results"]
        assert {entry["metric"]: entry["value"] for entry in results} == expected
        for metric, value in expected.items():
            assert Score.read(exp / "decode" / "test_en" / f"score_{metric}.json").value == value
        assert next(iter(expected)).upper() in capsys.readouterr().out
    evaluate.main([*call, *options.split()])
    assert "skip" in capsys.readouterr().out


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
