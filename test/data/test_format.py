"""The dump: what passes through, what is cut or converted, quarantine, repeatability."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bilevel.bin.format import main
from bilevel.data.archive import read_archive
from bilevel.data.audio import change_speed
from bilevel.data.container import truncation
from bilevel.data.datadir import read_datadir, write_datadir
from bilevel.data.features import fbank
from bilevel.data.format import FormatConfig, format_datadir
from bilevel.data.record import Utterance
from bilevel.data.scan import Limits
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate

RATE_HZ = 16000


@pytest.fixture
def ramp(tmp_path):
    """One second whose samples tell their own position."""
    whole = np.arange(RATE_HZ, dtype=np.int16)
    soundfile.write(tmp_path / "ramp.wav", whole, RATE_HZ)
    return tmp_path / "ramp.wav"


def make(tmp_path, rows, name="train"):
    write_datadir(tmp_path / "data" / name, rows)
    return tmp_path / "data" / name


def tree(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and ".done" not in f.parts}


def test_whole_good_files_pass_through(tmp_path, ramp, monkeypatch):
    monkeypatch.chdir(tmp_path)
    src = make(tmp_path, [Utterance("a", "ramp.wav", "one", "s", lang="de", source="lab", translations={"en": "x"})])
    dst = tmp_path / "dump"
    assert format_datadir(src, dst, FormatConfig())
    assert (dst / "wav.scp").read_text() == f"a {ramp}\n"
    assert (dst / "utt2num_samples").read_text() == "a 16000\n"
    assert (dst / "utt2dur").read_text() == "a 1.000000\n"
    assert (dst / "text.en").read_text() == "a x\n"
    assert (dst / "feats_type").read_text() == "raw\n"
    assert not (dst / "audio").exists()
    assert validate(dst) == []


def test_segments_are_cut_at_the_sample(tmp_path, ramp):
    rows = [
        Utterance("a", str(ramp), "one", "s", recording="r", start_sec=0.1, end_sec=0.25),
        Utterance("b", str(ramp), "two", "s", recording="r", start_sec=0.25, end_sec=1.0),
    ]
    dst = tmp_path / "dump"
    format_datadir(make(tmp_path, rows), dst, FormatConfig())
    assert (dst / "wav.scp").read_text() == f"a {dst}/audio/s/a.flac\nb {dst}/audio/s/b.flac\n"
    assert not (dst / "segments").exists()
    for key, start, stop in (("a", 1600, 4000), ("b", 4000, 16000)):
        samples, rate_hz = soundfile.read(dst / "audio" / "s" / f"{key}.flac", dtype="int16")
        assert rate_hz == RATE_HZ
        assert samples.tolist() == list(range(start, stop))
    assert read_scp(dst / "utt2num_samples") == {"a": "2400", "b": "12000"}
    assert validate(dst) == []


def test_speed_rate_and_channel_are_applied(tmp_path):
    n = np.arange(44100)
    stereo = np.stack([0 * n + 0.01, 0.5 * np.sin(2 * np.pi * 1000 * n / 44100)], axis=1)
    soundfile.write(tmp_path / "x.wav", stereo, 44100)
    src = make(tmp_path, [Utterance("a", str(tmp_path / "x.wav"), "one", "s", speed=1.1)])
    dst = tmp_path / "dump"
    with pytest.raises(ValueError, match=r"rate 44100 Hz.*--resample true"):
        format_datadir(src, dst, FormatConfig(Limits()))
    assert not dst.exists()
    assert "rate 44100" in (tmp_path / "dump.quarantine.tsv").read_text()
    with pytest.raises(ValueError, match="2 channels"):
        format_datadir(src, dst, FormatConfig(Limits(resample=True)))
    format_datadir(src, dst, FormatConfig(Limits(resample=True), channel=1))
    assert not (tmp_path / "dump.quarantine.tsv").exists()
    samples, rate_hz = soundfile.read(dst / "audio" / "s" / "a.flac")
    assert rate_hz == RATE_HZ
    assert len(samples) == int(read_scp(dst / "utt2num_samples")["a"]) == pytest.approx(RATE_HZ / 1.1, abs=1)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * RATE_HZ / len(samples) == pytest.approx(1100, abs=2)
    assert not (dst / "utt2speed").exists()


def test_sphere_files(tmp_path):
    soundfile.write(tmp_path / "x.sph", np.arange(8000, dtype=np.int16), RATE_HZ, format="NIST", subtype="PCM_16")
    row = Utterance("a", str(tmp_path / "x.sph"), "one", "s", recording="r", start_sec=0.1, end_sec=0.2)
    format_datadir(make(tmp_path, [row]), tmp_path / "dump", FormatConfig())
    samples = soundfile.read(tmp_path / "dump" / "audio" / "s" / "a.flac", dtype="int16")[0]
    assert samples.tolist() == list(range(1600, 3200))


def mixed(tmp_path, ramp, n_bad=1, n_good=6):
    rows = [Utterance(f"g{n}", str(ramp), f"text {n}", f"s{n % 2}", speed=1 + n / 10) for n in range(n_good)]
    for n in range(n_bad):
        path = tmp_path / f"bad{n}.wav"
        path.write_text("<html>")
        rows.append(Utterance(f"b{n}", str(path), "bad", "s9"))
    return make(tmp_path, rows)


def test_bad_files_are_quarantined_from_every_table(tmp_path, ramp):
    dst = tmp_path / "dump"
    format_datadir(mixed(tmp_path, ramp), dst, FormatConfig(Limits(max_bad_share=0.2)))
    assert (dst / "quarantine.tsv").read_text().startswith(f"b0\t{tmp_path}/bad0.wav\tunreadable")
    for name in ("wav.scp", "text", "utt2spk", "utt2dur", "utt2num_samples"):
        assert sorted(read_scp(dst / name)) == [f"g{n}" for n in range(6)]
    assert validate(dst) == []


def test_a_file_shorter_than_its_header_says_is_written_anew(tmp_path, ramp):
    whole, short = ramp.read_bytes(), tmp_path / "short.wav"
    short.write_bytes(whole[:-200])
    src = make(tmp_path, [Utterance("a", str(ramp), "text", "s"), Utterance("b", str(short), "text", "s")])
    format_datadir(src, tmp_path / "dump", FormatConfig(Limits(max_missing_share=0.01)))
    places = read_scp(tmp_path / "dump" / "wav.scp")
    assert places["a"] == str(ramp)
    assert truncation(Path(places["b"])) is None
    expected = soundfile.read(ramp, dtype="int16")[0][:-100]
    np.testing.assert_array_equal(soundfile.read(places["b"], dtype="int16")[0], expected)


def test_too_many_bad_files_stop_and_leave_the_earlier_dump(tmp_path, ramp):
    dst = tmp_path / "dump"
    config = FormatConfig(Limits(max_bad_share=0.2))
    format_datadir(mixed(tmp_path, ramp), dst, config)
    before = tree(dst)
    with pytest.raises(ValueError, match="5 of 11"):
        format_datadir(mixed(tmp_path, ramp, n_bad=5), dst, config)
    assert tree(dst) == before


def test_same_bytes_for_any_number_of_processes(tmp_path, ramp):
    src = mixed(tmp_path, ramp)
    dumps = []
    for nj in (1, 2):
        dst = tmp_path / str(nj) / "dump"
        format_datadir(src, dst, FormatConfig(Limits(max_bad_share=0.2)), nj=nj)
        dumps.append({k: v.replace(str(dst).encode(), b"") for k, v in tree(dst).items()})
    assert dumps[0] == dumps[1]


def test_fbank_dump(tmp_path, ramp):
    rows = [Utterance("a", str(ramp), "one", "s"), Utterance("b", str(ramp), "two", "s", speed=0.9)]
    dst = tmp_path / "dump"
    format_datadir(make(tmp_path, rows), dst, FormatConfig(feats_type="fbank", n_mels=23))
    samples = (np.arange(RATE_HZ) / 32768).astype(np.float32)
    feats = dict(read_archive(dst / "feats.scp"))
    assert np.array_equal(feats["a"], fbank(samples, RATE_HZ, 23))
    assert np.array_equal(feats["b"], fbank(change_speed(samples, 0.9), RATE_HZ, 23))
    assert read_scp(dst / "utt2num_frames") == {key: str(len(value)) for key, value in feats.items()}
    assert (dst / "feats_dim").read_text() == "23\n"
    assert not (dst / "wav.scp").exists()
    assert Path(read_scp(dst / "feats.scp")["a"].rsplit(":", 1)[0]) == dst / "feats.ark"


def test_fbank_refuses_less_than_a_window(tmp_path, ramp):
    soundfile.write(tmp_path / "short.wav", np.random.uniform(-1, 1, 350), RATE_HZ)
    rows = [Utterance("a", str(ramp), "one"), Utterance("b", str(tmp_path / "short.wav"), "two")]
    dst = tmp_path / "dump"
    format_datadir(make(tmp_path, rows), dst, FormatConfig(Limits(max_bad_share=0.5), "fbank"))
    assert "b\t" in (dst / "quarantine.tsv").read_text()


def test_command_skips_and_redoes(tmp_path, ramp, capsys):
    src = make(tmp_path, [Utterance("a", str(ramp), "one")])
    argv = ["--in_dir", str(src), "--out_dir", str(tmp_path / "dump")]
    main(argv)
    assert "1 utterances, 0 quarantined" in capsys.readouterr().out
    main([*argv, "--nj", "2"])
    assert capsys.readouterr().out.startswith("skip: ")
    main([*argv, "--max-sec", "9"])
    assert "skip: " not in capsys.readouterr().out
    make(tmp_path, [Utterance("a", str(ramp), "another")])
    main(argv)
    assert (tmp_path / "dump" / "text").read_text() == "a another\n"
    soundfile.write(ramp, np.arange(8000, dtype=np.int16), RATE_HZ)
    make(tmp_path, [Utterance("a", str(ramp), "another")])
    main(argv)
    assert (tmp_path / "dump" / "utt2num_samples").read_text() == "a 8000\n"


def test_pipes_are_run_only_when_allowed(tmp_path, ramp, capsys):
    src = make(tmp_path, [Utterance("a", str(ramp), "one")])
    (src / "wav.scp").write_text(f"a cat {ramp} |\n")
    argv = ["--in_dir", str(src), "--out_dir", str(tmp_path / "dump")]
    with pytest.raises(ValueError, match="--allow_pipes"):
        main(argv)
    main([*argv, "--allow-pipes"])
    assert "runs the commands" in capsys.readouterr().out
    assert soundfile.info(read_datadir(tmp_path / "dump")[0].audio).frames == RATE_HZ


def test_unknown_feature_type():
    with pytest.raises(ValueError, match="expected raw or fbank"):
        FormatConfig(feats_type="mfcc")


def test_real_speech(tmp_path, shared):
    rows = read_datadir(shared / "data" / "real" / "speechocean762")[:5]
    dst = tmp_path / "dump"
    format_datadir(make(tmp_path, rows), dst, FormatConfig())
    assert (dst / "quarantine.tsv").read_text() == ""
    assert [u.audio for u in read_datadir(dst)] == [u.audio for u in rows]
