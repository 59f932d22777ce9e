"""One file per corpus, found by discovery: drop a module here and `bilevel data --corpus` knows it.

A corpus module holds
    LICENSE, HOMEPAGE: what may be done with the corpus and where it lives.
    RATE_HZ: its sampling rate, or None when it depends on the source folder.
    SETS: set name -> the official splits it is made of. Empty: a set is the split of that name in the source folder,
        and a function splits(src) lists these.
    EXPECTED: split -> (utterances, hours) as published; None for what nobody published.
    utterances(src, split): the records of one official split, texts as published; MissingSplitError if it is absent.
and may hold
    download(dst, splits): fetch the splits, return the folder to use as `src`.
    missing(src, split): what can be told of a split that is not complete, one line an item; it decides whether a split
        is complete when its number of utterances is not published.
    HOURS_TOLERANCE: how far, as a fraction, the hours may be from EXPECTED.
It writes nothing, sorts nothing and resamples nothing: `prepare` does that for all of them.
"""

import difflib
import importlib
import pkgutil
from types import ModuleType

_NOT_CORPORA = {"prepare", "share"}


class MissingSplitError(ValueError):
    """The source folder does not hold that split."""


def names() -> list[str]:
    """Names of all corpora, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_CORPORA and m.name[0] != "_")


def load(name: str) -> ModuleType:
    """The module of a corpus.

    Raises:
        ValueError: There is no such corpus; names the nearest one.
    """
    choices = names()
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown corpus {name!r}; the nearest one is {near!r}, all: {', '.join(choices)}")
    return importlib.import_module(f"{__name__}.{name}")


def shorten(items: list[str], limit: int = 20) -> str:
    """A list for one line of an error message: the first `limit` items and how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
