"""AMI Meeting Corpus: meetings of three to five people, 78 hours of training speech, 16 kHz.

Layout of the source folder, as the mirror in Edinburgh, Kaldi, ESPnet or lhotse leave it: audio in
`[amicorpus/ or wav_db/]<meeting>/audio/<meeting>.{Headset-N,Array1-01}.wav`, annotations (NXT) in `words/`, `segments/`
and `corpusResources/` below the folder itself, `ami_public_manual_1.6.2/`, `_1.6.1/` or `annotations/`.
`corpusResources/meetings.xml` has each meeting's participants: agent (A to E), headset, global name.
`words/<meeting>.<agent>.words.xml` lists words, marks, sounds and gaps with their times; a segment points at a range of
them, `#id(first)..id(last)`.

Splits are `<microphone>_<part>`. The parts are those of the official Full-corpus-ASR partition, as in Kaldi and ESPnet:
137, 18 and 16 meetings (lhotse lacks IB4005, of the training part).
* ihm: each speaker's headset. EN2001a, d and e have five.
* sdm: the first microphone of the first array. IS1003b and IS1007d have no array; ES2010d.Array1-01 has two channels,
  we take the first (lhotse leaves the meeting out).
* mdm: beamformed arrays, `<meeting>_MDM8.wav` in `mdm8/`, `beamformed/<meeting>/` or with the other audio. Kaldi's
  `local/ami_beamform.sh` makes them with BeamformIt; we have no beamformer. `download` looks for ready ones below
  `beamformed/` of the mirror, as lhotse does.

Rules, those of Kaldi's `ami/s5b` and ESPnet's `ami/asr1`
* A segment lasts from the first to the last time of all it points at, sounds and gaps included, unless it states times
  of its own (51 do; `transcriber_start` is another, coarser time). It is cut at the time of each full stop and question
  mark. A piece of more than 30 words and marks is cut at the comma nearest to its middle, and again.
* A stop inside a word (`now.I'm`; 27 in the corpus) cuts too but has no time: the pieces after it get their neighbours'
  times, and the last is lost.
* Ids are `AMI_<meeting>_<H0N, SDM or MDM>_<speaker>_<start>_<end>`, with seven digits of centiseconds, cut off and not
  rounded; these are the segment's times, too. The speaker is the id up to there. (Kaldi has one speaker a meeting for
  sdm and mdm.)
* In dev and eval a segment that begins before the speaker's last one has ended begins there, for scoring; its id stays.
  One does, in IB4004.
* Left out: segments with a mark without time (one), or of no length, or without words; repetitions (one); agents whom
  meetings.xml does not know (five, who say nothing).
* Segments that reach over the end of the recording are cut there (Kaldi leaves out those with more than half a second
  too much). Six of TS3007c begin after it: stage 3 lists them.
* Text has the words in their published case, without marks and sounds. Words cut off by their speaker stay, and so do
  words without time. Hyphens become spaces, but not in mm-hmm and uh-huh. Spelled words (`T_V_`) become `T. V.`, so
  prepare with `--punctuation keep`.

This file and Kaldi's script were both run on all annotations of release 1.6.2. They give the same 134,244 ids, but for
one (IN1016: Kaldi ends a piece at the comma of another), and the same texts (in capitals), but for eight with a word
such as `um,you`, which Kaldi loses and we keep.

lhotse (`prepare_ami`) takes words by their times, not by the segment's pointer: those between its transcriber times. So
words without time, or with an end before their start, are lost. It cuts at full stops only (a maximal number of words
adds commas), not inside words, and keeps repetitions and segments with a mark without time. Its pieces begin with their
first word and end with their last: a sound at either end of a segment is no part of them, nor do the segment's own
times count. Segments over the end of a recording, it drops or cuts. Texts are in capitals; `T_V_` is `T V`, and two
words `uh huh` stay two. It numbers the pieces; its speakers are global names.

EXPECTED: dev and eval are Kaldi's counts (RESULTS_ihm). For training, the copy of Kaldi's data at
huggingface.co/datasets/edinburghcstr/ami has 108,502 (sdm: 107,319), which lacks one utterance of ES2002b that Kaldi's
script and this one make of the published annotations. Hours are those of the segments; the names of that copy's files
add up to the same (76.9, 8.94 and 8.68 without the two meetings).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from bilevel.corpora import MissingSplitError, shorten
from bilevel.corpora._nxt import read_participants, read_pieces
from bilevel.data import fetch
from bilevel.data.audio import length_sec
from bilevel.data.record import Utterance

LICENSE = "CC BY 4.0, AMI Consortium"
HOMEPAGE = "https://groups.inf.ed.ac.uk/ami/corpus"
RATE_HZ = 16000
MIRROR = "https://groups.inf.ed.ac.uk/ami"
RELEASE = "ami_public_manual_1.6.2"
# Not published by Edinburgh; many public projects that use the archive state this one and its 22,887,865 bytes.
SHA256 = "b56e5babb2496b8795deeeda7e71178d7fbc9963f94276cf2a3f4b56ebbc9f9d"
NO_ARRAY = {"IS1003b", "IS1007d"}


def _meetings(series: str) -> tuple[str, ...]:
    return tuple(name[:6] + letter for name in series.split() for letter in name[6:] or ("",))


MEETINGS = {
    "train": _meetings(
        "EN2001abde EN2003a EN2004a EN2005a EN2006ab EN2009bcd ES2002abcd ES2003abcd ES2005abcd ES2006abcd ES2007abcd "
        "ES2008abcd ES2009abcd ES2010abcd ES2012abcd ES2013abcd ES2014abcd ES2015abcd ES2016abcd IB4005 IN1001 IN1002 "
        "IN1005 IN1007 IN1008 IN1009 IN1012 IN1013 IN1014 IN1016 IS1000abcd IS1001abcd IS1002bcd IS1003abcd IS1004abcd "
        "IS1005abc IS1006abcd IS1007abcd TS3005abcd TS3006abcd TS3007abcd TS3008abcd TS3009abcd TS3010abcd TS3011abcd "
        "TS3012abcd"
    ),
    "dev": _meetings("ES2011abcd IB4001 IB4002 IB4003 IB4004 IB4010 IB4011 IS1008abcd TS3004abcd"),
    "eval": _meetings("EN2002abcd ES2004abcd IS1009abcd TS3003abcd"),
}
EXPECTED = {
    "ihm_train": (108503, 77.9), "ihm_dev": (13098, 8.94), "ihm_eval": (12643, 8.68),
    "sdm_train": (107320, 76.9), "sdm_dev": (13098, 8.94), "sdm_eval": (12643, 8.68),
    "mdm_train": (107320, 76.9), "mdm_dev": (13098, 8.94), "mdm_eval": (12643, 8.68),
}  # fmt: skip
SETS = {split: (split,) for split in EXPECTED} | {
    f"ihm_sdm_{part}": (f"ihm_{part}", f"sdm_{part}") for part in ("train", "dev")
}


def utterances(src: Path, split: str) -> Iterator[Utterance]:
    """Records of one split, one speaker of one meeting in memory at a time; `missing` names absent files."""
    mic, part = _parts(src, split)
    annotations = _annotations(src, split)
    n_found = 0
    for meeting, agents in _participants(annotations, part).items():
        for agent, (speaker, headset) in agents.items():
            audio = _audio(src, mic, meeting, headset)
            if audio is None:
                continue
            n_found += 1
            recording = f"AMI_{meeting}_{f'H{headset:02d}' if mic == 'ihm' else mic.upper()}"
            audio_sec = length_sec(audio)
            previous_csec = 0
            for piece in sorted(set(read_pieces(annotations, meeting, agent))):
                start_sec, end_sec = piece.start_csec / 100, piece.end_csec / 100
                if part != "train" and piece.start_csec < previous_csec < piece.end_csec:
                    start_sec = previous_csec / 100
                previous_csec = piece.end_csec
                yield Utterance(
                    id=f"{recording}_{speaker}_{piece.start_csec:07d}_{piece.end_csec:07d}",
                    audio=str(audio),
                    text=piece.text,
                    speaker=f"{recording}_{speaker}",
                    recording=recording,
                    start_sec=start_sec,
                    end_sec=min(end_sec, audio_sec) if start_sec < audio_sec else end_sec,
                    channel=None if mic == "ihm" else 0,
                    source="ami",
                )
    if n_found == 0:
        raise MissingSplitError(_absent(src, split))


def missing(src: Path, split: str) -> list[str]:
    """Meetings, annotation files and audio files that a complete split would have."""
    mic, part = _parts(src, split)
    annotations = _annotations(src, split)
    participants = _participants(annotations, part)
    unknown = [meeting for meeting in MEETINGS[part] if meeting not in participants]
    agents = [(m, a, headset) for m, found in participants.items() for a, (_, headset) in found.items()]
    files = (f"{layer}/{m}.{a}.{layer}.xml" for m, a, _ in agents for layer in ("words", "segments"))
    unwritten = [name for name in files if not (annotations / name).is_file()]
    silent = [
        _audio_name(mic, m, headset)
        for m, _, headset in agents
        if not (mic != "ihm" and m in NO_ARRAY) and _audio(src, mic, m, headset) is None
    ]
    return [
        f"{what} {shorten(list(dict.fromkeys(items)))}"
        for what, items in (("meetings", unknown), ("annotations", unwritten), ("audio", silent))
        if items
    ]


def download(dst: Path, splits: Sequence[str]) -> Path:
    """Fetch the annotations and the splits' audio below `dst`; returns the folder to use as `src`.

    Everything resumes. The annotations must have their SHA-256. Nobody publishes checksums of the audio: a file must
    have the length that the server states and the header of a 16 kHz WAV file; stage 3 reads all of it.
    """
    dst = Path(dst)
    archive = f"{MIRROR}/AMICorpusAnnotations/{RELEASE}.zip"
    fetch.fetch_archive(archive, dst / RELEASE, f"sha256:{SHA256}")
    for split in splits:
        mic, part = _parts(dst, split)
        for meeting, agents in _participants(dst / RELEASE, part).items():
            if mic != "ihm" and meeting in NO_ARRAY:
                continue
            headsets = [headset for _, headset in agents.values()]
            for name in dict.fromkeys(_audio_name(mic, meeting, headset) for headset in sorted(headsets)):
                _fetch_audio(audio_url(mic, meeting, name), dst / "amicorpus" / meeting / "audio" / name)
    return dst


def audio_url(mic: str, meeting: str, name: str) -> str:
    """Where the mirror has an audio file."""
    folder = f"beamformed/{meeting}" if mic == "mdm" else f"{meeting}/audio"
    return f"{MIRROR}/AMICorpusMirror/amicorpus/{folder}/{name}"


def _fetch_audio(url: str, path: Path) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    fetch.download(url, part)
    try:
        rate_hz = soundfile.info(str(part)).samplerate
    except soundfile.SoundFileError:
        rate_hz = None
    if rate_hz != RATE_HZ:
        part.unlink()
        raise ValueError(f"{url}: the server sent no 16 kHz WAV file; fetch it by hand, give --src")
    part.replace(path)


def _parts(src: Path, split: str) -> tuple[str, str]:
    if split not in EXPECTED:
        raise MissingSplitError(f"{src}: no split {split!r}; AMI has {', '.join(EXPECTED)}")
    mic, _, part = split.partition("_")
    return mic, part


def _annotations(src: Path, split: str) -> Path:
    for name in ("", RELEASE, "ami_public_manual_1.6.1", "annotations"):
        if (Path(src) / name / "corpusResources" / "meetings.xml").is_file():
            return Path(src) / name
    raise MissingSplitError(
        f"{src}: no annotations for split {split!r}: expected {RELEASE}/corpusResources/meetings.xml there; unpack "
        f"{MIRROR}/AMICorpusAnnotations/{RELEASE}.zip into {Path(src) / RELEASE}"
    )


def _participants(annotations: Path, part: str) -> dict[str, dict[str, tuple[str, int]]]:
    known = read_participants(annotations)
    return {meeting: known[meeting] for meeting in MEETINGS[part] if meeting in known}


def _absent(src: Path, split: str) -> str:
    mic, part = _parts(src, split)
    name = _audio_name(mic, MEETINGS[part][0], 0)
    made = "; beamform the arrays with Kaldi's local/ami_beamform.sh, put the files into mdm8/" if mic == "mdm" else ""
    return f"{src}: no audio of split {split!r}: expected amicorpus/<meeting>/audio/ with files such as {name}{made}"


def _audio_name(mic: str, meeting: str, headset: int) -> str:
    names = {"ihm": f".Headset-{headset}", "sdm": ".Array1-01", "mdm": "_MDM8"}
    return f"{meeting}{names[mic]}.wav"


def _audio(src: Path, mic: str, meeting: str, headset: int) -> Path | None:
    name = _audio_name(mic, meeting, headset)
    folders = [f"{root}{meeting}/audio" for root in ("", "amicorpus/", "wav_db/")]
    if mic == "mdm":
        folders += [f"{root}{part}" for root in ("mdm8/", "beamformed/", "") for part in ("", meeting)]
    return next((path for folder in folders if (path := Path(src) / folder / name).is_file()), None)
