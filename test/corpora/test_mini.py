"""The embedded corpus: rules of its plan, of its sound, and that it is the same everywhere."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bilevel.corpora import MissingSplitError, _channel, _espeak, _synthesis, mini
from bilevel.data.normalise import normalise
from bilevel.testing.corpus import check_corpus

SMALL = mini.Sizes(n_labelled=12, n_unlabelled=48, n_dev=10, n_test=20, n_voices=27)  # 4 shards, the last not full


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini.prepare(tmp_path_factory.mktemp("mini"), nj=2, sizes=SMALL)


@pytest.fixture(scope="module")
def recordings(corpus: Path) -> list[tuple[dict[str, str], np.ndarray]]:
    return [(row, soundfile.read(corpus / row["audio"], dtype="int16")[0]) for row in _synthesis.rows(corpus)]


def by_split(items: list[mini.Item]) -> dict[str, list[mini.Item]]:
    return {split: [item for item in items if item.split == split] for split in mini.EXPECTED}


# --- the plan of the default corpus


def test_sizes_are_those_at_the_top_of_the_module():
    found = {split: len(items) for split, items in by_split(mini.plan()).items()}
    assert found == {split: count for split, (count, _) in mini.EXPECTED.items()}
    assert found["train_lab"] + found["train_rest"] == mini.N_UNLABELLED
    assert len({item.id for item in mini.plan()}) == sum(found.values())


def test_sentences_are_varied_and_short():
    items = mini.plan()
    words = [item.text.split() for item in items]
    assert len({word for sentence in words for word in sentence}) >= 150
    assert len({word for item in by_split(items)["train_lab"] for word in item.text.split()}) >= 150
    assert all(3 <= len(sentence) <= 8 for sentence in words)
    assert all(normalise(item.text) == item.text for item in items)  # spoken as written, no symbol of the grammar left
    assert all(item.text.isascii() and item.text.replace(" ", "").isalpha() for item in items)


def test_no_sentence_occurs_twice_hence_none_is_shared_between_splits():
    texts = [item.text for item in mini.plan()]
    assert len(set(texts)) == len(texts)


def test_voices_of_dev_and_test_are_held_out():
    parts: dict[str, set] = {}
    for item in mini.plan():
        parts.setdefault(item.split.split("_")[0], set()).add(item.voice)
    assert len(set().union(*parts.values())) == mini.N_VOICES >= 60
    assert {part: len(voices) for part, voices in parts.items()} == {"test": 8, "dev": 8, "train": mini.N_VOICES - 16}
    variants = [{voice.variant for voice in voices} for voices in parts.values()]
    assert sum(map(len, variants)) == len(set().union(*variants))  # not even the eSpeak variant is shared
    assert all(0.92 <= voice.warp <= 1.09 for voices in parts.values() for voice in voices)


def test_labelled_set_begins_the_pool_and_hears_all_training_voices():
    assert mini.SETS["train_unlab"] == mini.SETS["train"] == ("train_lab", "train_rest")
    items = by_split(mini.plan())
    assert {item.voice for item in items["train_lab"]} == {item.voice for item in items["train_rest"]}
    numbers = [int(item.id.rpartition("-")[2]) for item in items["train_lab"] + items["train_rest"]]
    assert numbers == list(range(mini.N_UNLABELLED))


def test_dev_and_test_stay_when_training_sizes_change():
    larger, default = (
        by_split(mini.plan(mini.Sizes(n_labelled=mini.N_LABELLED + 100, n_unlabelled=mini.N_UNLABELLED + 500))),
        by_split(mini.plan()),
    )
    assert larger["test"] == default["test"]
    assert larger["dev"] == default["dev"]
    assert larger["train_lab"][: mini.N_LABELLED] == default["train_lab"]


@pytest.mark.parametrize("wrong", [{"n_labelled": mini.N_UNLABELLED + 1}, {"n_dev": 0}, {"n_voices": 16}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="n_labelled <= n_unlabelled"):
        mini.Sizes(**wrong)


# --- the same bytes


def test_other_job_count_gives_the_same_files(corpus: Path, tmp_path: Path):
    again = mini.prepare(tmp_path, nj=1, sizes=SMALL)
    files = [path.relative_to(corpus) for path in corpus.rglob("*.*") if path.suffix in (".wav", ".tsv")]
    files.append(Path("SHA256"))
    assert len(files) == 48 + 10 + 20 + 2
    assert all((again / file).read_bytes() == (corpus / file).read_bytes() for file in files)


def test_default_dev_split_has_the_recorded_checksum_and_hours(tmp_path: Path):
    wheel = _espeak.version()
    if wheel not in mini.PCM_SHA256:
        pytest.skip(f"no checksums are recorded for {_espeak.WHEEL} {wheel}")
    lines = _synthesis.render_in_fresh_process("mini", tmp_path, 1, mini.Sizes())
    _synthesis.write_manifest(tmp_path, lines)
    assert _synthesis.split_digests(tmp_path) == {"dev": mini.PCM_SHA256[wheel]["dev"]}
    hours = sum(soundfile.info(u.audio).duration for u in mini.utterances(tmp_path, "dev")) / 3600
    assert (len(lines), hours) == (mini.EXPECTED["dev"][0], pytest.approx(mini.EXPECTED["dev"][1], abs=5e-5))


def test_checksums_are_those_of_the_samples(corpus: Path, recordings: list):
    digests: dict[str, str] = {}
    for row, samples in recordings:
        assert hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest() == row["pcm_sha256"]
        digests[row["split"]] = digests.get(row["split"], "") + row["pcm_sha256"]
    expected = [f"{hashlib.sha256(joined.encode()).hexdigest()}  {split}" for split, joined in digests.items()]
    assert (corpus / "SHA256").read_text().splitlines() == expected


def test_wrong_checksum_is_an_error_and_an_unknown_wheel_a_note(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    found, expected = _synthesis.split_digests(corpus)["test"], mini.PCM_SHA256["0.2.4"]["test"]
    monkeypatch.setattr(_espeak, "version", lambda: "0.2.4")
    with pytest.raises(ValueError, match=rf"test: found {found}, expected {expected} for espeakng-loader 0\.2\.4"):
        _synthesis.verify("mini", corpus, mini.PCM_SHA256)
    monkeypatch.setattr(_espeak, "version", lambda: "9.9")
    _synthesis.verify("mini", corpus, mini.PCM_SHA256)
    assert "no checksums are recorded for espeakng-loader 9.9" in capsys.readouterr().out


def test_finished_work_is_kept_and_a_lost_file_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sizes = mini.Sizes(n_labelled=1, n_unlabelled=2, n_dev=1, n_test=1, n_voices=24)
    mini.prepare(tmp_path, nj=2, sizes=sizes)
    lost = next(tmp_path.rglob("*.wav"))
    before = lost.read_bytes()
    capsys.readouterr()
    mini.prepare(tmp_path, sizes=sizes)
    assert "synthesising" not in capsys.readouterr().out
    lost.unlink()
    mini.prepare(tmp_path, nj=2, sizes=sizes)
    assert lost.read_bytes() == before


# --- the sound


def test_audio_is_16_khz_mono_and_of_the_length_listed(corpus: Path, recordings: list):
    for row, samples in recordings:
        info = soundfile.info(corpus / row["audio"])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert len(samples) == int(row["n_samples"])
        assert 0.9 < len(samples) / 16000 < 4.5
        n_words = len(row["text"].split())
        assert 1.5 < n_words / (len(samples) / 16000 - 0.35) < 6  # words a second of people, not of machines


def test_audio_is_neither_silent_nor_clipped(recordings: list):
    peaks_db = [20 * np.log10(np.abs(samples.astype(float)).max() / 32767) for _, samples in recordings]
    assert peaks_db == pytest.approx([float(row["peak_db"]) for row, _ in recordings], abs=0.1)
    assert -18.1 <= min(peaks_db) < -12
    assert -6 < max(peaks_db) <= -0.9
    assert min(samples.std() for _, samples in recordings) > 100
    assert max(abs(samples.mean()) / samples.std() for _, samples in recordings) < 0.01


def test_noise_before_the_speech_has_the_listed_snr(recordings: list):
    lead, edge = slice(0, 1440), 2400
    for row, samples in recordings:
        noise_power = np.mean(samples[lead].astype(float) ** 2)
        speech_power = np.mean(samples[edge:-edge].astype(float) ** 2) - noise_power
        assert 15 <= float(row["snr_db"]) <= 35
        # 90 ms of noise and the unknown edges of the speech leave the measurement this uncertain.
        assert 10 * np.log10(speech_power / noise_power) == pytest.approx(float(row["snr_db"]), abs=3.5)


def test_nothing_passes_outside_the_listed_band(recordings: list):
    for row, samples in recordings:
        power = np.abs(np.fft.rfft(samples)) ** 2
        freq_hz = np.fft.rfftfreq(len(samples), 1 / 16000)
        outside = (freq_hz > 1.5 * float(row["high_hz"])) | (freq_hz < 0.6 * float(row["low_hz"]))
        assert power[outside].sum() < 0.005 * power.sum()
    assert {row["noise"] for row, _ in recordings} == {"white", "pink"}
    assert {row["low_hz"] for row, _ in recordings} == {"50.0", "300.0"}
    assert sum(row["high_hz"] == "8000.0" for row, _ in recordings) < len(recordings)


@pytest.mark.parametrize("warp", [0.92, 1.0, 1.09])
def test_warp_multiplies_frequencies_and_divides_duration(warp: float):
    channel = _channel.Channel("white", 60, 50, 8000, -6, 0.1, 0.1)
    tone = (8000 * np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050)).astype(np.int16)
    out = _channel.transmit(tone, 22050, warp, channel, 16000, np.random.RandomState(0)).astype(float)
    assert len(out) / 16000 == pytest.approx(1 / warp + 0.2, abs=0.011)
    middle = out[3000:12000] * np.hanning(9000)
    peak_hz = np.abs(np.fft.rfft(middle)).argmax() * 16000 / 9000
    assert peak_hz == pytest.approx(1000 * warp, rel=0.002)


@pytest.mark.parametrize("noise", ["white", "pink"])
def test_snr_is_met_within_the_band(noise: str):
    channel = _channel.Channel(noise, 12, 300, 3400, -1, 0.2, 0.2)
    tone = (8000 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 22050)).astype(np.int16)
    out = _channel.transmit(tone, 22050, 1.0, channel, 16000, np.random.RandomState(0)).astype(float)
    alone = out[3300:-3300]  # without the 0.2 s of lead and tail
    power = np.abs(np.fft.rfft(alone * np.hanning(len(alone)))) ** 2
    is_tone = np.abs(np.fft.rfftfreq(len(alone), 1 / 16000) - 1000) < 15
    snr_db = 10 * np.log10(power[is_tone].sum() / power[~is_tone].sum())
    assert snr_db == pytest.approx(12, abs=0.5)


# --- records and errors


def test_keeps_the_contract_of_corpora(corpus: Path):
    check_corpus(mini, corpus)


def test_utterances_of_a_split(corpus: Path, tmp_path: Path):
    found = list(mini.utterances(corpus, "train_lab"))
    expected = [item for item in mini.plan(SMALL) if item.split == "train_lab"]
    assert {(u.id, u.speaker, u.text) for u in found} == {(i.id, i.voice.name, i.text) for i in expected}
    assert all(u.id.startswith(u.speaker + "-") and Path(u.audio).is_file() for u in found)
    with pytest.raises(MissingSplitError, match="no split 'eval'"):
        next(mini.utterances(corpus, "eval"))
    with pytest.raises(MissingSplitError, match=r"no manifest\.tsv; without --src"):
        next(mini.utterances(tmp_path, "dev"))


def test_absent_wheel_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"espeakng-loader.* not installed; run: pip install espeakng-loader==0\.2\.4"):
        mini.prepare(tmp_path, sizes=SMALL)
    assert not any(tmp_path.iterdir())


def test_failed_shard_is_reported(tmp_path: Path):
    (tmp_path / "audio").write_text("in the way")
    with pytest.raises(ChildProcessError, match=r"shard \d: exit status 1: .*(Not a directory|File exists)"):
        mini.prepare(tmp_path, sizes=SMALL)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"no voice variant 'nobody'; run: pip install espeakng-loader==0\.2\.4"):
        _espeak.Espeak(seed=1).speak("hello", "nobody", wpm=170, pitch=50, pitch_range=50, volume=50)
