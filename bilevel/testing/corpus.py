"""Conformance kit for corpus modules: what `prepare` and the recipes rely on."""

import io
from pathlib import Path
from types import ModuleType

import soundfile

from bilevel.data import shard
from bilevel.data.record import Utterance


def check_corpus(module: ModuleType, src: Path) -> None:
    """Check that a corpus module keeps the contract of `bilevel.corpora` on one source folder.

    Every split of the folder is read twice. The module must state its constants; yield the same records each time;
    give unique ids, one audio file an id (or one a recording), text for all or for none, and no line breaks; point to
    files that open at `RATE_HZ` and hold the segment; keep splits apart; and refuse a split that is not there by name.

    Args:
        module: For instance `bilevel.corpora.load("librispeech")`.
        src: A complete source folder, for instance one of `bilevel.testing.trees`.

    Raises:
        AssertionError: A rule is broken; the message names the rule and the utterance.
    """
    _check_constants(module)
    splits = sorted({s for parts in module.SETS.values() for s in parts}) or module.splits(src)
    seen: dict[str, str] = {}
    for split in splits:
        rows = list(module.utterances(src, split))
        assert rows, f"split {split}: not one utterance"
        assert rows == list(module.utterances(src, split)), f"split {split}: a second reading differs"
        _check_records(rows, split)
        for u in rows:
            assert u.id not in seen, f"utterance {u.id} is in {seen[u.id]} and in {split}"
            seen[u.id] = split
            _check_audio(u, module.RATE_HZ)
    _check_refusal(module, src)


def _check_constants(module: ModuleType) -> None:
    for name in ("LICENSE", "HOMEPAGE"):
        value = vars(module).get(name)
        assert isinstance(value, str), f"{module.__name__}: expected a string {name}"
        assert value.strip(), f"{module.__name__}: {name} is empty"
    rate_hz = module.RATE_HZ
    assert rate_hz is None or (isinstance(rate_hz, int) and rate_hz > 0), f"RATE_HZ is {rate_hz!r}"
    splits = {s for parts in module.SETS.values() for s in parts}
    strays = set(module.EXPECTED) - splits if module.SETS else set()
    assert not strays, f"EXPECTED names splits of no set: {strays}"
    for split, (n_utterances, hours) in module.EXPECTED.items():
        assert n_utterances is None or n_utterances > 0, f"EXPECTED[{split}]: {n_utterances} utterances"
        assert hours is None or hours > 0, f"EXPECTED[{split}]: {hours} h"


def _check_records(rows: list[Utterance], split: str) -> None:
    assert all(isinstance(u, Utterance) for u in rows), f"split {split}: expected records of type Utterance"
    assert len({u.id for u in rows}) == len(rows), f"split {split}: an id occurs twice"
    assert len({u.text is None for u in rows}) == 1, f"split {split}: text for some utterances only"
    files: dict[str, str] = {}
    for u in rows:
        assert not u.text or len(u.text.splitlines()) == 1, f"utterance {u.id}: line break in the text"
        assert files.setdefault(u.recording or u.id, u.audio) == u.audio, f"{u.recording or u.id}: two audio files"


def _check_audio(u: Utterance, rate_hz: int | None) -> None:
    assert Path(shard.file_of(u.audio)).is_file(), f"utterance {u.id}: no file {u.audio}"
    info = soundfile.info(_source(u))
    assert rate_hz in (None, info.samplerate), f"utterance {u.id}: {info.samplerate} Hz, RATE_HZ says {rate_hz}"
    assert info.frames > 0, f"utterance {u.id}: {u.audio} is empty"
    if u.duration_sec is not None:
        stated = f"the corpus says {u.duration_sec} s"
        assert abs(u.duration_sec - info.duration) < 0.05, f"utterance {u.id}: {info.duration} s, {stated}"
    if u.end_sec is not None:
        assert u.end_sec <= info.frames / info.samplerate + 1e-6, f"utterance {u.id}: ends after its recording"


def _source(u: Utterance) -> str | io.BytesIO:
    if shard.split(u.audio) is None:
        return u.audio
    tar, wanted = shard.split(u.audio)
    content = next((data for key, data in shard.members(tar, {wanted}) if key == wanted), None)
    assert content is not None, f"utterance {u.id}: {tar} has no member {wanted}"
    return io.BytesIO(content)


def _check_refusal(module: ModuleType, src: Path) -> None:
    message = None
    try:
        list(module.utterances(src, "no-such-split"))
    except ValueError as error:
        message = str(error)
    assert message is not None, "a split that is not there: expected a ValueError"
    assert "no-such-split" in message, f"the refusal of a split does not name it: {message}"
