"""Paired bootstrap: what it must say in clear cases, and what it refuses."""

import random

import numpy as np
import pytest

from bilevel.scoring.significance import compare, compare_runs
from bilevel.scoring.wer import score

RNG = random.Random(0)
REFS = {f"u{i:03d}": " ".join(RNG.choices("abcdefgh", k=RNG.randint(2, 12))) for i in range(300)}
UTT2SPK = {key: f"s{i // 20}" for i, key in enumerate(REFS)}


def system(error_rate, seed=0, refs=REFS, **options):
    rng = random.Random(seed)
    hyps = {key: " ".join("x" if rng.random() < error_rate else w for w in refs[key].split()) for key in refs}
    return score(refs, hyps, utt2spk=UTT2SPK, **options)


@pytest.mark.parametrize("resample", ["utterance", "speaker"])
def test_identical_systems(resample):
    result = compare(system(0.2), system(0.2), resample=resample)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("resample", ["utterance", "speaker"])
def test_clearly_better_system(resample):
    a, b = system(0.4), system(0.2, seed=1)
    result = compare(a, b, resample=resample)
    assert result.p_value < 0.01
    assert result.high < 0
    assert result.difference == pytest.approx(b.value - a.value)
    assert (result.value_a, result.value_b, result.n_utts) == (pytest.approx(a.value), pytest.approx(b.value), 300)


def test_exchanging_the_systems_changes_the_sign():
    forward, back = (compare(*pair) for pair in ((system(0.3), system(0.27, 1)), (system(0.27, 1), system(0.3))))
    assert back.difference == pytest.approx(-forward.difference)
    assert (back.low, back.high) == pytest.approx((-forward.high, -forward.low), abs=3e-3)
    assert back.p_value == pytest.approx(forward.p_value, abs=0.03)


def test_p_is_about_uniform_when_there_is_no_difference():
    values = [compare(system(0.2, 2 * i), system(0.2, 2 * i + 1), n_bootstrap=500).p_value for i in range(120)]
    assert 0.35 < np.mean(values) < 0.65
    assert np.mean(np.array(values) < 0.1) < 0.2


def test_runs_are_averaged_and_pairing_is_used():
    runs_a, runs_b = ([system(rate, seed) for seed in (1, 2, 3)] for rate in (0.3, 0.25))
    result = compare_runs(runs_a, runs_b)
    assert result.n_runs == 3
    assert result.value_a == pytest.approx(np.mean([run.value for run in runs_a]))
    assert result.difference == pytest.approx(np.mean([b.value - a.value for a, b in zip(runs_a, runs_b, strict=True)]))
    single = compare(runs_a[0], runs_b[0])
    assert result.high - result.low < single.high - single.low


def test_empty_references_take_no_part():
    refs = REFS | {"v1": "", "v2": "..."}
    speakers = UTT2SPK | {"v1": "s0", "v2": "s0"}
    hyps = dict.fromkeys(refs, "a b c")
    a, b = score(refs, hyps, utt2spk=speakers), score(refs, hyps | {"v1": "a b c d e"}, utt2spk=speakers)
    assert compare(a, b).difference == 0
    assert compare(a, b).n_utts == 300


def test_refusals():
    a = system(0.2)
    fewer = system(0.2, refs={key: REFS[key] for key in list(REFS)[2:]})
    with pytest.raises(ValueError, match="2 utterance ids in only one of the two, such as u000, u001"):
        compare(a, fewer)
    other = system(0.2, refs=REFS | {"u007": "quite another text"})
    with pytest.raises(ValueError, match="1 utterances with another text, such as u007"):
        compare(a, other)
    with pytest.raises(ValueError, match="scored in different ways"):
        compare(a, system(0.2, metric="cer"))
    with pytest.raises(ValueError, match="scored in different ways"):
        compare(a, system(0.2, case="keep"))
    nobody = score(REFS, REFS)
    with pytest.raises(ValueError, match="score with --utt2spk"):
        compare(nobody, nobody, resample="speaker")
    with pytest.raises(ValueError, match="as many runs"):
        compare_runs([a], [])
