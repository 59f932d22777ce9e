"""AMI's annotations in the format of the NITE XML Toolkit: participants, and what each says when.

The rules are in `bilevel.corpora.ami`.
"""

import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_ID = "{http://nite.sourceforge.net/}id"
_LINK = re.compile(r"#id\(([^)]+)\)(?:\.\.id\(([^)]+)\))?$")
_STOPS = (".", "?")
_MARKS = (*_STOPS, ",", "!", ":")
_MAX_TOKENS = 30
_MAX_XML_BYTES = 64 << 20


class Element(NamedTuple):
    """A word, a mark, or something else with times; `text` is empty for what is neither word nor mark."""

    text: str
    start_sec: float | None
    end_sec: float | None


class Token(NamedTuple):
    """A word, or a mark with its time."""

    text: str
    mark_sec: float | None


class Piece(NamedTuple):
    """A stretch of one speaker's speech: times in centiseconds, as in the id, and what is said."""

    start_csec: int
    end_csec: int
    text: str


def read_participants(annotations: Path) -> dict[str, dict[str, tuple[str, int]]]:
    """Meeting -> agent -> (global name, headset), agents sorted; a meeting without speakers counts as unknown.

    Raises:
        ValueError: meetings.xml is damaged, or a speaker lacks one of the three.
    """
    path = annotations / "corpusResources" / "meetings.xml"
    known: dict[str, dict[str, tuple[str, int]]] = {}
    for meeting in _root(path):
        agents = known.setdefault(meeting.get("observation", ""), {})
        for speaker in meeting.iter("speaker"):
            try:
                agents[speaker.attrib["nxt_agent"]] = speaker.attrib["global_name"], int(speaker.attrib["channel"])
            except (KeyError, ValueError) as error:
                raise ValueError(
                    f"{path}: a speaker of {meeting.get('observation')} has no good {error}: "
                    f"expected nxt_agent, global_name and a number as channel, found {speaker.attrib}"
                ) from None
    return {meeting: dict(sorted(agents.items())) for meeting, agents in known.items() if agents}


def read_pieces(annotations: Path, meeting: str, agent: str) -> Iterator[Piece]:
    """What one agent of a meeting says, segment by segment; nothing if one of the two files is not there.

    Raises:
        ValueError: Damaged XML, a time that is no number, or a segment that points at no element.
    """
    paths = [annotations / layer / f"{meeting}.{agent}.{layer}.xml" for layer in ("words", "segments")]
    if not all(path.is_file() for path in paths):
        return
    elements, places = [], {}
    for e in _root(paths[0]):
        places[e.get(_ID)] = len(elements)
        text = (e.text or "").strip() if e.tag == "w" else ""
        elements.append(Element(text, *_times(e, paths[0])))
    for segment in _root(paths[1]):
        part = []
        for child in segment:
            link = _LINK.search(child.get("href", ""))
            first, last = (link[1], link[2] or link[1]) if link else (None, None)
            if first not in places or last not in places:
                raise ValueError(
                    f"{paths[1]}: segment {segment.get(_ID)} points at {child.get('href')!r}, "
                    f"expected #id(...) or #id(...)..id(...) of {paths[0].name}; unpack the annotations again"
                )
            part += elements[places[first] : places[last] + 1]
        own = _times(segment, paths[1])
        starts = [e.start_sec for e in part if e.start_sec is not None] if own[0] is None else [own[0]]
        ends = [e.end_sec for e in part if e.end_sec is not None] if own[1] is None else [own[1]]
        if starts and ends:
            yield from cut(part, min(starts), max(ends))


def cut(elements: Sequence[Element], start_sec: float, end_sec: float) -> list[Piece]:
    """Kaldi's utterances of one segment: cut at stops, then pieces of more than 30 tokens at commas.

    Args:
        elements: What the segment points at, in order.
        start_sec: Start of the segment.
        end_sec: End of the segment.
    """
    marks = [Token(e.text, e.start_sec) for e in elements if e.text in _MARKS]
    if any(mark.mark_sec is None for mark in marks):
        return []
    sentences: list[list[Token]] = [[]]
    for e in elements:
        for n, text in enumerate(re.split("[.?]", e.text)):
            if n:  # a stop, also one inside a word
                sentences.append([])
            if text:
                sentences[-1].append(Token(text, e.start_sec if text in _MARKS else None))
    times_sec = [start_sec, *(mark.mark_sec for mark in marks if mark.text in _STOPS), end_sec]
    commas = [mark for mark in marks if mark.text not in _STOPS]
    found = []
    for sentence, (a, b) in zip(sentences, itertools.pairwise(times_sec), strict=False):
        for tokens, begin_sec, finish_sec in _halve(sentence, a, b, commas):
            # Cut off, as Kaldi does: 1.15 s is 114, because 1.15 * 100 is just below 115 in floating point.
            piece = Piece(int(begin_sec * 100), int(finish_sec * 100), clean(" ".join(t.text for t in tokens)))
            if piece.start_csec < piece.end_csec and piece.text:
                found.append(piece)
    return found


def _halve(
    tokens: list[Token], start_sec: float, end_sec: float, commas: Sequence[Token]
) -> list[tuple[list[Token], float, float]]:
    """Pieces with their times: cut at the comma nearest to the middle until no piece is too long.

    Kaldi looks through all marks of the segment that are no stops. If the nearest one is no comma, it gives up.
    """
    if len(tokens) <= _MAX_TOKENS:
        return [(tokens, start_sec, end_sec)]
    middle_sec = (start_sec + end_sec) / 2
    best = Token("", start_sec)
    # Kaldi sorts the times as text and stops at the end's, so "1000.2" as the end hides "999.5".
    for mark in sorted(commas, key=lambda mark: str(mark.mark_sec)):
        if mark.mark_sec == end_sec:
            break
        if abs(middle_sec - mark.mark_sec) < abs(middle_sec - best.mark_sec):
            best = mark
    if best.text != "," or best not in tokens:
        return [(tokens, start_sec, end_sec)]
    at = tokens.index(best)
    left = _halve(tokens[:at], start_sec, best.mark_sec, commas)
    return left + _halve(tokens[at + 1 :], best.mark_sec, end_sec, commas)


def clean(text: str) -> str:
    """Words without marks; `anti-trust` is two words, `Mm-hmm` one, and `T_V_` is `T. V.`."""
    text = " ".join(word for word in text.split() if word not in _MARKS)
    text = re.sub("[-,!:]", " ", text).replace("_", ". ")
    text = " ".join(text.split())
    return re.sub("(?i)(uh) (huh)", r"\1-\2", re.sub("(?i)(mm) (hmm)", r"\1-\2", text))


def _times(e: ET.Element, path: Path) -> tuple[float | None, float | None]:
    try:
        start_sec, end_sec = (None if e.get(key) is None else float(e.get(key)) for key in ("starttime", "endtime"))
    except ValueError:
        start_sec = end_sec = math.nan
    if any(t is not None and not 0 <= t < math.inf for t in (start_sec, end_sec)):
        raise ValueError(f"{path}: {e.get(_ID)}: expected seconds as starttime and endtime, found {e.attrib}")
    return start_sec, end_sec


def _root(path: Path) -> ET.Element:
    if path.stat().st_size > _MAX_XML_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size >> 20} MiB, expected at most 64; this is no file of AMI")
    try:
        return ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path}: damaged XML, {error}; unpack the annotations again") from None
