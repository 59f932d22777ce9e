"""Speed perturbation of a whole set: copies of the tables; the audio is changed where it is formatted."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bilevel.data.datadir import read_datadir, utterance_durations, write_datadir
from bilevel.data.record import Utterance


def parse_factors(text: str) -> tuple[float, ...]:
    """Read factors as ESPnet's `--speed_perturb_factors "0.9 1.0 1.1"`.

    Raises:
        ValueError: No factor, a repeated one, or one outside 0.1 .. 10.
    """
    factors = []
    for word in text.split():
        try:
            factors.append(float(word))
        except ValueError:
            raise ValueError(f"speed factor {word!r}: expected numbers such as '0.9 1.0 1.1'") from None
    wrong = [f for f in factors if not (math.isfinite(f) and 0.1 <= f <= 10)]
    if not factors or wrong or len(set(factors)) < len(factors):
        raise ValueError(f"speed factors {text!r}: expected different numbers from 0.1 to 10, such as '0.9 1.0 1.1'")
    return tuple(factors)


def perturb(utterance: Utterance, factor: float) -> Utterance:
    """A copy that plays `factor` times as fast (and as high); id and speaker get the prefix `sp<factor>-`.

    A perturbed voice is another voice, hence a speaker of its own. Factor 1 leaves the utterance alone.
    """
    if factor == 1.0:
        return utterance
    prefix = f"sp{factor:g}-"
    return replace(
        utterance,
        id=prefix + utterance.id,
        speaker=prefix + (utterance.speaker or utterance.id),
        speed=utterance.speed * factor,
    )


def perturb_datadir(src: Path, dst: Path, factors: Sequence[float]) -> int:
    """Write to `dst` one copy of `src` a factor; returns the number of utterances written.

    Raises:
        ValueError: `src` holds perturbed copies already, or `dst` is `src`.
    """
    src, dst = Path(src), Path(dst)
    if src.resolve() == dst.resolve():
        raise ValueError(f"{dst}: cannot write onto the set it is made from; name another directory")
    rows = read_datadir(src)
    again = [u.id for u in rows if u.speed != 1.0]
    if again:
        raise ValueError(f"{src}: {again[0]} is speed-perturbed already; start from the set as it was recorded")
    durations_sec = utterance_durations(rows)
    copies = [(perturb(u, factor), durations_sec.get(u.id), factor) for factor in factors for u in rows]
    scaled_sec = {u.id: length / factor for u, length, factor in copies if length is not None}
    write_datadir(dst, (u for u, _, _ in copies), durations_sec=scaled_sec)
    return len(copies)
