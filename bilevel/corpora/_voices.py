"""The speakers of `mini` and `mini_st`: an eSpeak NG variant each, with its own rate, pitch, melody and warp."""

from dataclasses import dataclass

import numpy as np

N_HELD_OUT = 8  # speakers of test, and of dev

_VARIANTS = {
    "test": "f2 m2 Annie paul linda victor Michael boris",
    "dev": "f4 m5 Lee belinda rob quincy shelby Mike",
    # Left out of the wheel's variants: robots, whispers, near copies, and those with almost all power below 900 Hz.
    "train": "f1 m1 f3 m3 f5 m4 aunty m6 Alicia m7 Andrea m8 grandma Alex zac Andy Denis AnxiousAndy Diogo Gene Gene2"
    " Marco Mario Nguyen Reed RicishayMax RicishayMax3 Storm Tweaky adam announcer antonio benjamin ed edward edward2"
    " grandpa ian iven2 iven3 john kaukovalta max michel miguel mike2 norbert pablo pedro robert sandro travis",
}


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthetic speaker.

    Attributes:
        name: Speaker id.
        part: "test", "dev" or "train".
        variant: Variant of eSpeak NG.
        wpm: Speaking rate, words a minute.
        pitch: Base pitch, 0 to 100.
        pitch_range: Liveliness of the melody, 0 to 100.
        warp: Factor on all frequencies.
    """

    name: str
    part: str
    variant: str
    wpm: float
    pitch: int
    pitch_range: int
    warp: float


def voices(n: int, rng: np.random.RandomState) -> list[Voice]:
    """Draw `n` speakers: test, then dev, then train, whose variants come round again with other parameters."""
    made = []
    for part, n_part in (("test", N_HELD_OUT), ("dev", N_HELD_OUT), ("train", n - 2 * N_HELD_OUT)):
        variants = _VARIANTS[part].split()
        for k in range(n_part):
            variant = variants[k % len(variants)]
            made.append(
                Voice(
                    name=f"{part}{k:03d}-{variant}",
                    part=part,
                    variant=variant,
                    wpm=rng.uniform(140, 185),
                    pitch=rng.randint(30, 71),
                    pitch_range=rng.randint(30, 81),
                    warp=rng.uniform(0.92, 1.09),
                )
            )
    return made
