"""The conformance kit on every corpus, and discovery."""

import types

import pytest

from bilevel.corpora import MissingSplitError, load, names
from bilevel.data.record import Utterance
from bilevel.testing.corpus import check_corpus
from bilevel.testing.trees import TREES

# mini and mini_st make their own audio, and yodas has its own trees; their own tests run the kit.
OWN_TEST = {"mini", "mini_st", "yodas", "yodas2"}


def test_every_corpus_has_a_miniature():
    assert set(TREES) | OWN_TEST >= set(names())


@pytest.mark.parametrize("name", sorted(TREES))
def test_conformance(name, tmp_path):
    check_corpus(load(name), TREES[name](tmp_path))


def test_unknown_corpus_names_the_nearest():
    with pytest.raises(ValueError, match="'librispech'; the nearest one is 'librispeech'"):
        load("librispech")


def test_helper_modules_are_no_corpora():
    assert not {"prepare", "share"} & set(names())


def broken(rows, **constants):
    def utterances(src, split):
        if split != "train":
            raise MissingSplitError(f"no split {split!r}")
        return iter(rows() if callable(rows) else rows)

    base = {"LICENSE": "x", "HOMEPAGE": "x", "RATE_HZ": 16000, "SETS": {"train": ("train",)}, "EXPECTED": {}}
    module = types.ModuleType("broken")
    vars(module).update(base | constants | {"utterances": utterances})
    return module


def test_kit_finds_broken_corpora(tmp_path):
    """A kit that never fails checks nothing: one mutant a rule."""
    src = TREES["kaldi"](tmp_path)
    wav = [str(p) for p in sorted((src / "audio").glob("*.wav"))]
    good = [Utterance("a-1", wav[0], "red sun"), Utterance("a-2", wav[1], "go")]
    check_corpus(broken(good), src)
    turns = iter(range(9))
    mutants = {
        "LICENSE": broken(good, LICENSE=" "),
        "of no set": broken(good, EXPECTED={"trian": (1, None)}),
        "not one utterance": broken([]),
        "second reading differs": broken(lambda: [Utterance(f"a-{next(turns)}", wav[0], "red")]),
        "occurs twice": broken([good[0], good[0]]),
        "some utterances only": broken([good[0], Utterance("a-3", wav[1])]),
        "line break": broken([Utterance("a-1", wav[0], "red\nsun")]),
        "no file": broken([Utterance("a-1", str(src / "nothing.wav"), "red")]),
        "RATE_HZ says 8000": broken(good, RATE_HZ=8000),
        "ends after": broken([Utterance("a-1", wav[0], "red", "", "r", 0.0, 99.0)]),
        "two audio files": broken(
            [Utterance("a-1", wav[0], "x", "", "r", 0.0, 0.1), Utterance("a-2", wav[1], "x", "", "r", 0.0, 0.1)]
        ),
    }
    for message, module in mutants.items():
        with pytest.raises(AssertionError, match=message):
            check_corpus(module, src)
