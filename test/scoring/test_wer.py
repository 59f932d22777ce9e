"""Error rates against hand-computed cases, a plain dynamic programme and jiwer."""

import json
import random
import subprocess
import sys

import jiwer
import numpy as np
import pytest

from bilevel.data.normalise import normalise, normalise_all
from bilevel.scoring.result import Counts, Score
from bilevel.scoring.wer import align, score

WORDS = ["a", "b", "c", "d", "ab", "ba", "abc"]


def distance(ref, hyp):
    """Levenshtein distance by the O(nm) recursion, independent of the implementation."""
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        previous, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (r != h))
    return row[-1]


def random_pairs(n, seed=0, least=1):
    rng = random.Random(seed)
    return ({f"u{i}": " ".join(rng.choices(WORDS, k=rng.randint(low, 9))) for i in range(n)} for low in (least, 0))


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("the cat sat", "the cat sat", (0, 0, 0)),
        ("the cat sat", "the dog sat", (1, 0, 0)),
        ("the cat sat", "the sat", (0, 1, 0)),
        ("the cat sat", "the fat cat sat", (0, 0, 1)),
        ("the cat sat", "", (0, 3, 0)),
        ("a b c d", "b c d e", (0, 1, 1)),
        ("a", "b c d", (1, 0, 2)),
    ],
)
def test_hand_computed(ref, hyp, expected):
    total = score({"u": ref}, {"u": hyp}).total
    assert (total.substitutions, total.deletions, total.insertions) == expected
    assert total.n_ref == len(ref.split())
    assert total.correct == total.n_ref - expected[0] - expected[1]
    assert total.n_wrong_utts == (sum(expected) > 0)


def test_rate_is_of_the_corpus_and_may_pass_one():
    result = score({"u1": "a b c d e f g h", "u2": "a b"}, {"u1": "a b c d e f g h", "u2": "x y z"})
    assert result.value == pytest.approx(3 / 10)
    assert result.total.sentence_error_rate == pytest.approx(1 / 2)
    assert score({"u": "a"}, {"u": "x y z"}).value == pytest.approx(3)


def test_cer_counts_characters_and_blanks():
    result = score({"u": "ab cd"}, {"u": "abcd"}, metric="cer")
    assert (result.total.n_ref, result.total.deletions, result.total.errors) == (5, 1, 1)


@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_equals_dynamic_programme_and_jiwer(metric):
    refs, hyps = random_pairs(300)
    result = score(refs, hyps, metric=metric)
    split = str.split if metric == "wer" else str
    for key, (_, n_ref, *errors) in result.utterances.items():
        assert n_ref == len(split(refs[key]))
        assert sum(errors) == distance(split(refs[key]), split(hyps[key]))
        assert errors[1] - errors[2] == n_ref - len(split(hyps[key])), "D - I must explain the lengths"
    peer = (jiwer.process_words if metric == "wer" else jiwer.process_characters)(
        list(refs.values()), [hyps[key] for key in refs]
    )
    total = result.total
    assert (total.correct, total.substitutions, total.deletions, total.insertions) == (
        peer.hits, peer.substitutions, peer.deletions, peer.insertions,
    )  # fmt: skip
    assert result.value == pytest.approx(peer.wer if metric == "wer" else peer.cer)


@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_alignment_spells_both_texts_and_has_the_counted_errors(metric):
    refs, hyps = random_pairs(100, seed=1)
    result = score(refs, hyps, metric=metric)
    split = str.split if metric == "wer" else list
    for key, row in result.utterances.items():
        ops = align(split(refs[key]), split(hyps[key]))
        assert [op.ref for op in ops if op.kind != "insertion"] == split(refs[key])
        assert [op.hyp for op in ops if op.kind != "deletion"] == split(hyps[key])
        assert all((op.kind == "correct") == (op.ref == op.hyp) for op in ops)
        kinds = [op.kind for op in ops]
        assert [kinds.count(kind) for kind in ("substitution", "deletion", "insertion")] == list(row[2:])


@pytest.mark.parametrize("metric", ["wer", "cer"])
@pytest.mark.parametrize(
    "twin", ["cafe\u0301 noir", "caf\u00e9\u00a0noir", "caf\u00e9\tnoir", "caf\u00e9 \u200bnoir", "Caf\u00e9, noir!"]
)
def test_equal_looking_text_has_no_error(twin, metric):
    assert score({"u": "caf\u00e9 noir"}, {"u": twin}, metric=metric).value == 0
    assert score({"u": twin}, {"u": "caf\u00e9 noir"}, metric=metric).value == 0


def test_case_and_punctuation_count_when_kept():
    pair = {"u": "Hello, world"}, {"u": "hello world"}
    assert score(*pair).value == 0
    assert score(*pair, case="keep").value == pytest.approx(0.5)
    assert score(*pair, punctuation="keep").value == pytest.approx(0.5)


def test_normalise_all_is_normalise_of_each():
    rng = random.Random(3)
    odd = "ab'Z9 \u0301\u00a0\u200b\t<>\u03a3\u0130-.\u2019e\n\u1100\u1161\u11a8"
    texts = ["".join(rng.choices(odd, k=rng.randint(0, 12))) for _ in range(3000)]
    texts += ["plain words only"] * 2048 + ["'tis", "a  b", " a", "it's"]
    for case in ("lower", "upper", "keep"):
        for punctuation in ("remove", "keep"):
            form = {"case": case, "punctuation": punctuation}
            assert normalise_all(texts, **form) == [normalise(text, **form) for text in texts]


def test_missing_extra_and_empty_hypotheses():
    refs = {"u1": "a b", "u2": "c d e", "u3": "f"}
    result = score(refs, {"u1": "a b", "u3": "", "u9": "x y"})
    assert result.missing == ("u2",)
    assert result.extra == ("u9",)
    assert (result.total.deletions, result.total.insertions) == (4, 0)
    assert result.value == pytest.approx(4 / 6)
    assert score(refs, {}).value == 1


def test_empty_reference_is_counted_apart():
    result = score({"u1": "a b", "u2": "...", "u3": ""}, {"u1": "a b", "u2": "x y", "u3": ""})
    assert result.value == 0
    assert result.n_utts == 1
    assert result.empty == Counts(2, 1, 0, 0, 0, 2)
    assert result.value_with_empty == pytest.approx(2 / 2), "sclite and jiwer count the insertions in"


def test_tables_add_up():
    refs, hyps = random_pairs(200, seed=2)
    utt2spk = {key: f"s{i % 7}" for i, key in enumerate(refs)}
    result = score(refs, hyps, utt2spk=utt2spk)
    for table in (result.speakers, result.lengths):
        for name in ("n_utts", "n_wrong_utts", "n_ref", "substitutions", "deletions", "insertions"):
            assert sum(getattr(row, name) for row in table.values()) == getattr(result.total, name)
    own = [key for key in refs if utt2spk[key] == "s3"]
    assert result.speakers["s3"] == score({k: refs[k] for k in own}, hyps).total
    assert result.lengths["1-5"].n_utts == sum(len(text.split()) <= 5 for text in refs.values())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"refs": {}}, "zero utterances"),
        ({"refs": {"u": "..."}}, "none of the 1 references has a word"),
        ({"hyps": {"v": "a"}}, "no utterance id in common.*u.*v"),
        ({"metric": "per"}, "'per': expected wer or cer"),
        ({"case": "title"}, "'title': expected lower"),
        ({"resample": "word"}, "'word': expected utterance or speaker"),
        ({"resample": "speaker"}, "at least 2 speakers, found 0"),
        ({"utt2spk": {}}, "1 utterances without speaker, such as u"),
        ({"n_bootstrap": 0}, "at least one of each"),
    ],
)
def test_refusals(change, match):
    with pytest.raises(ValueError, match=match):
        score(**({"refs": {"u": "a"}, "hyps": {"u": "a"}} | change))


def synthetic(n_utts, seed):
    rng = random.Random(seed)
    refs = {f"u{i:05d}": " ".join(rng.choices(WORDS, k=rng.randint(3, 15))) for i in range(n_utts)}
    return refs, {key: " ".join(w if rng.random() > 0.2 else "x" for w in text.split()) for key, text in refs.items()}


def test_interval_holds_the_value_and_shrinks_with_the_square_root_of_n():
    sizes = (100, 400, 1600, 6400)
    widths = []
    for n_utts in sizes:
        result = score(*synthetic(n_utts, seed=n_utts))
        assert result.low <= result.value <= result.high
        widths.append(result.high - result.low)
    slope = np.polyfit(np.log(sizes), np.log(widths), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.06)


def test_interval_covers_the_true_rate_about_95_times_in_100():
    hits = sum(r.low <= 0.2 <= r.high for r in (score(*synthetic(200, seed), n_bootstrap=400) for seed in range(200)))
    assert 180 <= hits <= 199


def test_interval_equals_plain_bootstrap():
    """The grouped multinomial draw has the distribution of drawing utterance numbers."""
    result = score(*synthetic(300, seed=5), n_bootstrap=20000)
    rows = np.array([(sum(row[2:]), row[1]) for row in result.utterances.values()])
    rng = np.random.default_rng(1)
    sums = [rows[rng.integers(len(rows), size=len(rows))].sum(axis=0) for _ in range(20000)]
    low, high = np.quantile([errors / n_ref for errors, n_ref in sums], [0.025, 0.975])
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.0015)


def test_same_seed_same_interval_and_speakers_widen_it():
    refs, hyps = synthetic(400, seed=7)
    utt2spk = {key: f"s{i // 40}" for i, key in enumerate(refs)}
    hyps |= {key: "x" for key in refs if utt2spk[key] in ("s0", "s1")}
    by_utt, again, other = (score(refs, hyps, utt2spk=utt2spk, seed=seed) for seed in (0, 0, 1))
    assert (by_utt.low, by_utt.high) == (again.low, again.high) != (other.low, other.high)
    by_speaker = score(refs, hyps, utt2spk=utt2spk, resample="speaker")
    assert by_speaker.high - by_speaker.low > 2 * (by_utt.high - by_utt.low)
    assert by_utt.signature.startswith("WER|norm:nfc+lower+nopunct.v1|tok:space|boot:1000.utt.seed0|v:")
    assert "boot:1000.spk.seed0" in by_speaker.signature


def test_json_round_trip(tmp_path):
    refs, hyps = random_pairs(20)
    result = score(refs, hyps, utt2spk={key: "s" + key[-1] for key in refs})
    result.write(tmp_path / "score.json")
    assert Score.read(tmp_path / "score.json") == result
    record = json.loads((tmp_path / "score.json").read_text())
    assert record["n_utts"] == 20
    del record["total"]
    (tmp_path / "score.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"score\.json: not a score: 'total'"):
        Score.read(tmp_path / "score.json")


@pytest.mark.parametrize("module", ["bilevel.bin.score", "bilevel.bin.compare", "bilevel.bin.report"])
def test_commands_do_not_import_torch(module):
    code = (
        f"import sys, {module}; sys.exit(' '.join({{'torch', 'matplotlib', 'espnet2'}} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
