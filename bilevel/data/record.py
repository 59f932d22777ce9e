"""The one record that corpora yield and data directories hold."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# Ids become file names and Kaldi keys: a safe set, so that none can leave a folder or start an option.
_SAFE_ID = re.compile(r"[\w.+=@%,][\w.+=@%,-]{0,199}")
_NO_TRANSLATIONS: Mapping[str, str] = MappingProxyType({})


def is_safe_id(name: str) -> bool:
    """Whether `name` can be an utterance, speaker or recording id (and a file name)."""
    return bool(_SAFE_ID.fullmatch(name)) and ".." not in name


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance: where its audio is and what is known of it.

    Attributes:
        id: Unique key, at most 200 safe characters; by habit it starts with the speaker id.
        audio: Path of the audio file, or `<shard>::<key>` for a member of a tar (see `bilevel.data.shard`).
        text: Transcript as the corpus gives it, or None for unlabelled audio.
        speaker: Speaker id; empty means that the utterance is its own speaker.
        recording: Id of the recording that `start_sec` and `end_sec` refer to, or None for a whole file.
        start_sec: Start of the segment in the recording.
        end_sec: End of the segment in the recording.
        channel: Channel to take of a multi-channel file, counted from 0; None refuses multi-channel files.
        speed: Speed factor still to be applied to the audio (1.1 is faster and higher).
        lang: Language code.
        source: Name of the data source, for training on heterogeneous sources.
        translations: Text in other languages, by language code.
        duration_sec: Length before any change of speed, as the corpus states it; then no header is read for it.

    Raises:
        ValueError: The id is unsafe, or only a part of the segment is given.
    """

    id: str
    audio: str
    text: str | None = None
    speaker: str = ""
    recording: str | None = None
    start_sec: float | None = None
    end_sec: float | None = None
    channel: int | None = None
    speed: float = 1.0
    lang: str | None = None
    source: str | None = None
    translations: Mapping[str, str] = field(default_factory=lambda: _NO_TRANSLATIONS)
    duration_sec: float | None = None

    def __post_init__(self) -> None:
        # Millions of utterances have thousands of speakers: one string each.
        object.__setattr__(self, "speaker", sys.intern(self.speaker))
        for kind, value in (
            ("utterance", self.id),
            ("speaker", self.speaker or self.id),
            ("recording", self.recording),
        ):
            if value is not None and not is_safe_id(value):
                raise ValueError(
                    f"{kind} id {value!r}: expected 1-200 letters, digits or any of _.+=@%,- "
                    "without '..' and not starting with '-'; rename it in the corpus or the manifest"
                )
        segment = (self.recording, self.start_sec, self.end_sec)
        if any(part is not None for part in segment) and any(part is None for part in segment):
            raise ValueError(f"utterance {self.id}: a segment needs recording, start_sec and end_sec, found {segment}")
        if self.start_sec is not None and not 0 <= self.start_sec < self.end_sec:
            raise ValueError(
                f"utterance {self.id}: expected 0 <= start < end, found {self.start_sec} .. {self.end_sec} s"
            )
