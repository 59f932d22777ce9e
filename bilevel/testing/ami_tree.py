"""A miniature AMI Meeting Corpus in the published layout, with synthesised audio."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import soundfile

from bilevel.testing.audio import CHAR_SEC, tones

_NITE = 'xmlns:nite="http://nite.sourceforge.net/"'
_HEAD = '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'
_WORDS = ("red", "sun", "milk", "tree", "go", "nine", "lamp", "open", "sky", "north", "it's", "echo", "bird", "wave")
_MARKS = (".", ",", "?", "!", ":")
_SOUND_SEC = 0.3
SPEAKERS = ("MEE068", "FEO065", "MTD0010ID", "MIO036", "FEE083")


class Turn(NamedTuple):
    """One segment. Tokens are words, marks, `[laugh]` (0.3 s), `[cough]` (no end), `[gap]`, and words with a sign.

    `th~` is cut off by its speaker, `um^` has no time, `so=` no length, `do<` ends half a second before it starts.

    Attributes:
        start_sec: Start of the first token.
        text: The tokens.
        own_sec: Times that the segment states itself.
        n_segments: How many segments point at it.
    """

    start_sec: float
    text: str
    own_sec: tuple[float, float] | None = None
    n_segments: int = 1


LONG = " , ".join(["so we go on and on in it"] * 4)  # 32 words and 3 commas
ODD_TURNS = {
    "A": (
        Turn(0.2, "[laugh] Okay . [cough] [laugh]"),
        Turn(2.0, "Does it open ? Mm-hmm uh huh , T_V_ anti-trust th~ [gap] ."),
        Turn(6.0, f"{LONG} . Yes ."),
        Turn(11.0, "um^ go north ."),
        Turn(12.0, "red sun .^"),
        Turn(13.0, "Well now.I'm here . Yes . No ."),
        Turn(15.0, "so= .="),
        Turn(15.5, "Bird , um,you see .", n_segments=2),
        Turn(17.0, "[laugh] [gap]"),
        Turn(17.5, "Milk .", own_sec=(17.4, 18.4)),
        Turn(18.5, "Never pointed at .", n_segments=0),
        Turn(19.5, "Echo do< wave ."),
        Turn(20.5, "Sky"),
    ),
    "B": (Turn(0.6, "Nine ."), Turn(21.6, "Long after the end .")),
    "C": (Turn(4.5, "Lamp ."),),
    "D": (Turn(5.0, "Tree ."),),
    "E": (Turn(5.5, "Wave ."),),
}
ODD_END_SEC = 21.0
# The second segment begins before the first, with its trailing laugh, has ended.
OVERLAP = (Turn(0.1, "Okay go [laugh]"), Turn(0.6, "Open the lamp ."))


def ami_tree(dst: Path, odd: bool = False, seed: int = 0) -> Path:
    """AMI: a meeting of two speakers for each part, with headsets, arrays and a beamformed file.

    `odd` adds EN2001a (five headsets, every oddity, and one segment after the end), IS1003b (no array), ES2010d (an
    array of two channels) and ES2011a (overlapping segments in dev).
    """
    rng, root = random.Random(seed), Path(dst) / "ami"
    meetings: dict[str, Mapping[str, Sequence[Turn]]] = {
        name: {agent: _tidy(rng, 0.2 + 1.7 * n) for n, agent in enumerate("AB")}
        for name in ("ES2002a", "IB4001", "EN2002a", *(("IS1003b", "ES2010d") if odd else ()))
    }
    if odd:
        meetings |= {"EN2001a": ODD_TURNS, "ES2011a": {"A": OVERLAP}}
    notes = root / "ami_public_manual_1.6.2"
    for name in ("words", "segments", "corpusResources"):
        (notes / name).mkdir(parents=True)
    (notes / "00README_MANUAL.txt").write_text("AMI Manual Annotations release 1.7\n", encoding="ascii")
    rows = []
    for n, (meeting, speech) in enumerate(meetings.items(), 1):
        speakers = "".join(
            f'      <speaker nite:id="{meeting}_{k + 1}" channel="{k}" nxt_agent="{agent}" '
            f'global_name="{SPEAKERS[k]}" role="PM"/>\n'
            for k, agent in reversed(list(enumerate(speech)))  # the published file is in no order
        )
        rows.append(f'   <meeting nite:id="meet_{n}" observation="{meeting}" duration="30">\n{speakers}   </meeting>\n')
        _write_meeting(root, notes, meeting, speech)
    if odd:  # an agent whom meetings.xml does not know, without words
        _write_xml(notes / "words/EN2001a.F.words.xml", "EN2001a.F.words", [])
        _write_xml(notes / "segments/EN2001a.F.segments.xml", "EN2001a.F.segs", [])
    _write_xml(notes / "corpusResources/meetings.xml", "meet.00", rows)
    return root


def _tidy(rng: random.Random, start_sec: float) -> tuple[Turn, ...]:
    """Segments of two sentences each, every 3.4 s."""

    def sentence() -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(2, 3)))

    return tuple(Turn(round(start_sec + 3.4 * n, 2), f"{sentence()} , go . {sentence()} .") for n in range(3))


def _write_meeting(root: Path, notes: Path, meeting: str, speech: Mapping[str, Sequence[Turn]]) -> None:
    n_samples = round(16000 * (ODD_END_SEC if meeting == "EN2001a" else 11.0))
    folder, total = root / "amicorpus" / meeting / "audio", np.zeros(n_samples)
    folder.mkdir(parents=True)
    for n, (agent, turns) in enumerate(speech.items()):
        samples = np.random.default_rng(n).standard_normal(n_samples) * 0.003
        words, segments, number = [], [], 0
        for turn in turns:
            stem, first, t = f"{meeting}.{agent}.words", number, turn.start_sec
            for token in turn.text.split():
                words.append(_element(f"{stem}{number}", token, t))
                number += 1
                t = round(t + _length_sec(token), 2)
                _sing(samples, token, t - _length_sec(token), 0.7 + 0.1 * n)
            link = f"{stem}.xml#id({stem}{first})" + (f"..id({stem}{number - 1})" if number - 1 > first else "")
            segments += [_segment(f"{meeting}.sync.1,{len(segments)}", n, turn, t, link)] * turn.n_segments
            number += 2  # ids have gaps
        _write_xml(notes / "words" / f"{meeting}.{agent}.words.xml", f"{meeting}.{agent}.words", words)
        _write_xml(notes / "segments" / f"{meeting}.{agent}.segments.xml", f"{meeting}.{agent}.segs", segments)
        soundfile.write(folder / f"{meeting}.Headset-{n}.wav", samples, 16000, subtype="PCM_16")
        total += samples / 2
    if meeting != "IS1003b":
        array = np.stack([total, -total], axis=1) if meeting == "ES2010d" else total
        soundfile.write(folder / f"{meeting}.Array1-01.wav", array, 16000, subtype="PCM_16")
        (root / "mdm8").mkdir(exist_ok=True)
        soundfile.write(root / "mdm8" / f"{meeting}_MDM8.wav", total, 16000, subtype="PCM_16")


def _length_sec(token: str) -> float:
    if token in ("[laugh]", "[cough]"):
        return _SOUND_SEC
    return 0.0 if token == "[gap]" or token[-1] in "=^<" or token in _MARKS else CHAR_SEC * len(token.rstrip("~"))


def _sing(samples: np.ndarray, token: str, start_sec: float, pitch: float) -> None:
    if token[0] != "[" and _length_sec(token):
        sound = tones(token.rstrip("~"), pitch=pitch)[1600:-1600]
        at = round(start_sec * 16000)
        part = samples[at : at + len(sound)]  # nothing is recorded after the end
        part += sound[: len(part)]


def _element(name: str, token: str, start_sec: float) -> str:
    end_sec = round(start_sec + _length_sec(token) - (0.5 if token[-1] == "<" else 0.0), 2)
    times = f' starttime="{start_sec}"' + ("" if token == "[cough]" else f' endtime="{end_sec}"')
    if token[0] == "[":
        tag, kind = ("gap", "") if token == "[gap]" else ("vocalsound", f' type="{token[1:-1]}"')
        return f'   <{tag} nite:id="{name}"{times}{kind}/>\n'
    text = token.rstrip("~^=<")
    flags = (' punc="true"' if text in _MARKS else "") + (' trunc="true"' if token[-1] == "~" else "")
    return f'   <w nite:id="{name}"{"" if token[-1] == "^" else times}{flags}>{escape(text, {chr(39): "&#39;"})}</w>\n'


def _segment(name: str, channel: int, turn: Turn, end_sec: float, link: str) -> str:
    own = 'starttime="{}" endtime="{}" '.format(*turn.own_sec) if turn.own_sec else ""
    start_sec, end_sec = round(turn.start_sec - 0.02, 3), round(end_sec + 0.02, 3)
    return (
        f'   <segment nite:id="{name}" {own}channel="{channel}" transcriber_start="{start_sec}" '
        f'transcriber_end="{end_sec}">\n      <nite:child href="{link}"/>\n   </segment>\n'
    )


def _write_xml(path: Path, name: str, rows: Sequence[str]) -> None:
    text = f'{_HEAD}<nite:root nite:id="{name}" {_NITE}>\n{"".join(rows)}</nite:root>\n'
    path.write_text(text, encoding="iso-8859-1")
