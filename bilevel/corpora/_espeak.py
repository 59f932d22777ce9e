"""eSpeak NG through ctypes, from the wheel `espeakng-loader`: text in, samples out, no system package."""

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path

import numpy as np

WHEEL = "espeakng-loader"
TESTED_VERSION = "0.2.4"

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when the callback has seen all samples
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report a missing data folder instead of ending the process
_POSITION_CHARACTER, _CHARS_UTF8 = 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def version() -> str:
    """Version of the installed wheel.

    Raises:
        OSError: The wheel is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise OSError(
            f"eSpeak NG not found: mini and mini_st are synthesised with the wheel {WHEEL}, which is not installed; "
            f"run: pip install {WHEEL}=={TESTED_VERSION}"
        )
    return importlib.metadata.version(WHEEL)


class Espeak:
    """The synthesiser of this process.

    eSpeak NG keeps state from one utterance to the next (its noise generator and wave positions survive even
    espeak_Terminate), so the same samples come back only for the same calls in the same order in a fresh process.

    Args:
        seed: Seed of its noise generator.

    Attributes:
        rate_hz: Sampling rate of what `speak` returns.

    Raises:
        OSError: The wheel is absent, or its library or data cannot be loaded.
    """

    def __init__(self, seed: int) -> None:
        version()
        import espeakng_loader

        self._data = Path(espeakng_loader.get_data_path())
        self._library = library = ctypes.CDLL(espeakng_loader.get_library_path())
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_SetSynthCallback.argtypes = [_CALLBACK]
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self.rate_hz: int = library.espeak_Initialize(_SYNCHRONOUS, 0, str(self._data).encode(), _DONT_EXIT)
        if self.rate_hz <= 0:
            raise OSError(f"eSpeak NG cannot read its data at {self._data}; run: pip install --force-reinstall {WHEEL}")
        self._languages = {path.name.lower() for path in (self._data / "lang").rglob("*") if path.is_file()}
        self._chunks: list[bytes] = []
        self._callback = _CALLBACK(self._collect)  # the library keeps only a pointer: hold the object
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(seed)

    def _collect(self, samples: int | None, n_samples: int, _events: int | None) -> int:
        if samples and n_samples > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * n_samples))
        return 0

    def speak(
        self,
        text: str,
        variant: str,
        *,
        wpm: int,
        pitch: int,
        pitch_range: int,
        volume: int,
        language: str = "en-us",
    ) -> np.ndarray:
        """Synthesise one utterance.

        Args:
            text: What to say.
            variant: Speaker variant, a file name under `voices/!v` of the data folder.
            wpm: Speaking rate in words a minute, 80 to 450.
            pitch: Base pitch, 0 to 100.
            pitch_range: Liveliness of the melody, 0 (flat) to 100.
            volume: Loudness; 100 is the library's default and clips with some variants.
            language: Language as eSpeak NG names it: "en-us", "de", "fr", "cmn".

        Returns:
            Samples at `rate_hz`, shape (S,), int16.

        Raises:
            ValueError: There is no such variant or language (the library itself would silently speak with its plain
                voice), or it returned an error or nothing.
        """
        mend = f"run: pip install {WHEEL}=={TESTED_VERSION}"
        if not (self._data / "voices" / "!v" / variant).is_file():
            raise ValueError(f"{WHEEL} {version()} has no voice variant {variant!r}; {mend}")
        if language not in self._languages:
            raise ValueError(f"{WHEEL} {version()} has no language {language!r}; {mend}")
        library, encoded = self._library, text.encode()
        self._chunks.clear()
        status = library.espeak_SetVoiceByName(f"{language}+{variant}".encode())
        for parameter, value in ((_RATE, wpm), (_VOLUME, volume), (_PITCH, pitch), (_RANGE, pitch_range)):
            status = status or library.espeak_SetParameter(parameter, value, 0)
        status = status or library.espeak_Synth(
            encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0 or not self._chunks:
            raise ValueError(f"eSpeak NG, voice {language}+{variant}, text {text!r}: error {status}, no audio")
        return np.frombuffer(b"".join(self._chunks), dtype="<i2")
