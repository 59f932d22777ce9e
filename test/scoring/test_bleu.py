"""BLEU and chrF against sacreBLEU itself, and the laws of interval and comparison."""

import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from bilevel.scoring.bleu import score, verbose
from bilevel.scoring.result import Score
from bilevel.scoring.significance import compare, compare_runs, mean_interval
from bilevel.scoring.table import format_score
from bilevel.scoring.wer import score as error_rate

WORDS = ["the", "cat", "sat", "on", "a", "mat", ",", "and", "it's", "quite", "Big", "in", "Berlin", "3.5", "times", "."]
REAL = {
    "u1": ("The Commission's proposal, of 2019, was rejected.", "The Commission proposal of 2019 was rejected."),
    "u2": ("Wie spät ist es? Es ist 7:45 Uhr.", "Wie spät ist es jetzt? Es ist 7:45 Uhr."),
    "u3": ("我们明天去北京。", "明天我们去北京。"),
    "u4": ('He said: "no".', ""),
    "u5": ("", "uh"),
}  # fmt: skip


def texts(n_utts, error_rate, seed=0):
    rng = random.Random(n_utts)
    refs = {f"u{i:04d}": " ".join(rng.choices(WORDS, k=rng.randint(1, 15))) for i in range(n_utts)}
    rng = random.Random(seed)
    hyps = {
        key: " ".join(rng.choice(WORDS) if rng.random() < error_rate else word for word in text.split())
        for key, text in refs.items()
    }
    return refs, hyps


def system(error_rate, seed=0, n_utts=150, **options):
    return score(*texts(n_utts, error_rate, seed), **{"n_bootstrap": 50} | options)


CORPORA = [({k: r for k, (r, _) in REAL.items()}, {k: h for k, (_, h) in REAL.items()}), texts(60, 0.3), texts(3, 0.9)]


@pytest.mark.parametrize(("refs", "hyps"), CORPORA, ids=["real", "random", "hardly a match"])
@pytest.mark.parametrize("case", ["keep", "lower"])
def test_value_is_that_of_sacrebleu(refs, hyps, case):
    low = case == "lower"
    lists = [hyps[key] for key in refs], [list(refs.values())]
    for tokenize in ("13a", "zh", "char", "none"):
        found = score(refs, hyps, tokenize=tokenize, case=case)
        assert found.value == sacrebleu.corpus_bleu(*lists, tokenize=tokenize, lowercase=low).score
        assert found.low <= found.value <= found.high
    assert score(refs, hyps, metric="chrf", case=case).value == CHRF(lowercase=low).corpus_score(*lists).score
    assert score(refs, refs, tokenize="char").value == pytest.approx(100)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_interval_is_that_of_sacrebleu_on_resampled_texts(metric):
    refs, hyps = texts(80, 0.4)
    found = score(refs, hyps, metric=metric, n_bootstrap=4000)
    peer, ids, rng = BLEU() if metric == "bleu" else CHRF(), sorted(refs), np.random.default_rng(1)
    values = []
    for _ in range(300):
        drawn = [ids[n] for n in rng.integers(len(ids), size=len(ids))]
        values.append(peer.corpus_score([hyps[key] for key in drawn], [[refs[key] for key in drawn]]).score)
    low, high = np.quantile(values, [0.025, 0.975])
    # An end of 300 draws has a standard error of about 0.15 deviations; half a deviation is an eighth of the width.
    assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 8)


def test_signature_is_sacrebleus_own():
    refs, hyps = texts(5, 0.2)
    assert score(refs, hyps).signature == (
        f"BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}|boot:1000.utt.seed0"
    )
    assert "|case:lc|eff:no|tok:zh|" in score(refs, hyps, case="lower", tokenize="zh").signature
    assert score(refs, hyps, metric="chrf").signature == (
        f"chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}|boot:1000.utt.seed0"
    )


def test_empty_hypotheses_and_what_is_printed():
    refs, hyps = texts(20, 0.0)
    silent = score(refs, dict.fromkeys(refs, ""))
    assert (silent.value, silent.low, silent.high) == (0, 0, 0)
    some = score(refs, hyps | {"u0003": "", "x9": "alone"})
    assert some.value < score(refs, hyps).value == pytest.approx(100)
    text = format_score(some)
    assert f"BLEU {some.value:.2f}   95 % interval" in text
    assert some.signature in text
    assert verbose(some) in text
    assert "BP = 0." in verbose(some)
    assert "1 hypotheses without reference, ignored: x9" in text


def test_json_round_trip(tmp_path):
    found = system(0.3)
    found.write(tmp_path / "score.json")
    assert Score.read(tmp_path / "score.json") == found
    assert found.n_utts == 150


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_equal_systems_and_exchanged_systems(metric):
    a, b = system(0.3, metric=metric), system(0.27, 1, metric=metric)
    same = compare(a, a, n_bootstrap=200)
    assert (same.difference, same.low, same.high, same.p_value, same.verdict) == (0, 0, 0, 1, "not significant")
    forth, back = compare(a, b, n_bootstrap=200), compare(b, a, n_bootstrap=200)
    assert (back.difference, back.p_value) == (-forth.difference, forth.p_value)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    assert (forth.value_a, forth.value_b) == (a.value, b.value)


def test_more_is_better():
    a, b = system(0.5), system(0.1, 1)
    assert compare(a, b, n_bootstrap=200).low > 0
    assert compare(a, b, n_bootstrap=200).verdict == "better"
    assert compare(b, a, n_bootstrap=200).verdict == "worse"
    worse, better = (error_rate(*texts(150, rate)) for rate in (0.5, 0.1))
    assert compare(worse, better, n_bootstrap=200).verdict == "better"


def test_paired_test_is_that_of_text_drawn_again():
    """Deviation of the difference against sacreBLEU on resampled texts, the same draw for both systems."""
    (refs, hyps_a), (_, hyps_b) = texts(80, 0.4), texts(80, 0.35, 1)
    found = compare(score(refs, hyps_a), score(refs, hyps_b), n_bootstrap=2000)
    rng, ids, differences = np.random.default_rng(2), sorted(refs), []
    for _ in range(300):
        drawn = [ids[n] for n in rng.integers(len(ids), size=len(ids))]
        lists = [[side[key] for key in drawn] for side in (hyps_a, hyps_b, refs)]
        differences.append(
            BLEU().corpus_score(lists[1], lists[2:]).score - BLEU().corpus_score(lists[0], lists[2:]).score
        )
    assert (found.high - found.low) / 3.92 == pytest.approx(np.std(differences), rel=0.15)


def test_several_runs_count_with_their_mean_not_with_their_pool():
    runs_a, runs_b = ([system(rate, seed) for seed in (1, 2, 3)] for rate in (0.4, 0.3))
    found = compare_runs(runs_a, runs_b, n_bootstrap=200)
    assert found.value_a == pytest.approx(np.mean([run.value for run in runs_a]))
    assert found.difference == pytest.approx(np.mean([b.value - a.value for a, b in zip(runs_a, runs_b, strict=True)]))
    low, high = mean_interval(runs_a, n_bootstrap=400)
    assert low < found.value_a < high
    assert high - low < max(run.high - run.low for run in (system(0.4, seed, n_bootstrap=400) for seed in (1, 2, 3)))


def test_speakers_are_drawn_whole():
    refs, hyps = texts(120, 0.3)
    utt2spk = {key: f"s{n // 30}" for n, key in enumerate(refs)}
    hyps |= {key: "wrong" for key in refs if utt2spk[key] == "s0"}
    options = {"utt2spk": utt2spk, "n_bootstrap": 400}
    by_utt, by_speaker = (score(refs, hyps, resample=unit, **options) for unit in ("utterance", "speaker"))
    assert by_speaker.value == by_utt.value
    assert by_speaker.high - by_speaker.low > 1.5 * (by_utt.high - by_utt.low)
    assert "boot:400.spk.seed0" in by_speaker.signature
    assert compare(by_utt, by_speaker, resample="speaker", n_bootstrap=50).p_value == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"hyps": {"u": "a"}}, "1 utterances without hypothesis, such as v; decode"),
        ({"refs": {}}, "zero utterances"),
        ({"refs": {"u": " ", "v": ""}}, "none of the 2 references has a word"),
        ({"hyps": {"w": "a"}}, "no utterance id in common"),
        ({"metric": "ter"}, "'ter': expected bleu or chrf"),
        ({"case": "upper"}, "'upper': sacreBLEU has keep and lower"),
        ({"tokenize": "spm"}, "'spm': expected one of 13a, char, ja-mecab, none, zh"),
        ({"tokenize": "zh", "metric": "chrf"}, "'zh': chrF counts characters"),
        ({"resample": "speaker"}, "at least 2 speakers, found 0"),
    ],
)
def test_refusals(change, match):
    with pytest.raises(ValueError, match=match):
        score(**({"refs": {"u": "a", "v": "b"}, "hyps": {"u": "a", "v": ""}} | change))


def test_what_was_scored_in_another_way_is_not_compared():
    a = system(0.3)
    others = ({"tokenize": "char"}, {"case": "lower"}, {"metric": "chrf"})
    for options in others:
        with pytest.raises(ValueError, match="scored in different ways"):
            compare(a, system(0.3, **options))
    refs, hyps = texts(150, 0.3)
    with pytest.raises(ValueError, match="1 utterances with another text, such as u0007"):
        compare(a, score(refs | {"u0007": "another text"}, hyps))


def test_japanese_without_its_packages_says_what_to_install(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(ValueError, match=r"ja-mecab: its packages are missing; pip install 'sacrebleu\[ja\]'"):
        score({"u": "a"}, {"u": "a"}, tokenize="ja-mecab")
