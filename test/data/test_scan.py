"""Every kind of bad audio gets its own verdict."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bilevel.data.record import Utterance
from bilevel.data.scan import Limits, check_share, judge, probe, scan, summary, write_quarantine

RATE_HZ = 16000


def noise(n_samples=16000, scale=0.3):
    return np.random.uniform(-scale, scale, n_samples)


def write(path, samples, rate_hz=RATE_HZ, **kwargs):
    soundfile.write(path, samples, rate_hz, **kwargs)
    return path


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def damage(path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)


def with_nan(path):
    samples = noise().astype(np.float32)
    samples[7000] = np.nan
    write(path, samples, subtype="FLOAT")


def with_inf(path):
    write(path, np.append(noise(), np.inf).astype(np.float32), subtype="FLOAT")


BAD = {
    "zero.wav": (lambda p: p.write_bytes(b""), "empty file"),
    "page.wav": (lambda p: p.write_text("<html>404</html>"), "unreadable"),
    "random.wav": (lambda p: p.write_bytes(np.random.bytes(5000)), "unreadable"),
    "header.wav": (lambda p: write(p, np.zeros(0)), "no samples"),
    "cut.wav": (lambda p: cut(write(p, noise())), "truncated"),
    "cut.flac": (lambda p: cut(write(p, noise())), "truncated|unreadable"),
    "damaged.flac": (lambda p: damage(write(p, noise())), "unreadable|truncated"),
    "cut.opus": (lambda p: cut(write(p, noise(80000), format="OGG", subtype="OPUS")), "truncated"),
    "cut.sph": (lambda p: cut(write(p, noise(), format="NIST")), "truncated"),
    "nan.wav": (with_nan, "NaN or infinite"),
    "inf.wav": (with_inf, "NaN or infinite"),
    "silence.wav": (lambda p: write(p, np.zeros(16000)), "all samples equal 0"),
    "offset.wav": (lambda p: write(p, np.full(16000, 0.25)), r"all samples equal 0\.25"),
    "quiet.wav": (lambda p: write(p, noise(scale=5e-5)), "silent: peak"),
    "short.wav": (lambda p: write(p, noise(80)), r"too short: 0\.0050 s"),
    "long.wav": (lambda p: write(p, noise(16000 * 11)), r"too long: 11\.0 s"),
    "rate.wav": (lambda p: write(p, noise(), 44100), "rate 44100 Hz, expected 16000 Hz.*--resample true"),
    "stereo.wav": (lambda p: write(p, noise().reshape(-1, 2)), "2 channels, expected 1.*--channel 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio(tmp_path, name):
    make, reason = BAD[name]
    make(tmp_path / name)
    verdict = scan([Utterance("u", str(tmp_path / name))], Limits(max_sec=10))[0]
    assert verdict.reason
    assert re.search(reason, verdict.reason), verdict.reason


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "sph", "aiff", "mp3"])
def test_good_audio_of_every_kind(tmp_path, suffix):
    path = write(tmp_path / f"x.{suffix}", noise(), format="NIST" if suffix == "sph" else None)
    verdict = scan([Utterance("u", str(path))], Limits())[0]
    assert verdict.reason == ""
    assert verdict.probe.n_channels == 1
    assert verdict.probe.n_samples == pytest.approx(16000, abs=1200 if suffix == "mp3" else 0)


def test_missing_file_and_pipes():
    assert probe("/no/such.wav").error == "no such file"
    assert "a command instead of a file" in probe("touch PWNED |").error


def test_clipping_is_counted_not_refused(tmp_path):
    samples = noise(1000)
    samples[:20] = 1.0
    write(tmp_path / "x.wav", samples)
    verdict = scan([Utterance("u", str(tmp_path / "x.wav"))], Limits())[0]
    assert verdict.reason == ""
    assert verdict.probe.clipped_share == pytest.approx(0.02)
    assert summary([verdict]) == ["1 utterances, 0 quarantined, 1 with more than 1 % clipped samples"]


def test_a_header_that_promises_too_much(tmp_path):
    path = write(tmp_path / "x.wav", noise())
    path.write_bytes(path.read_bytes()[:-640])  # 640 of 32,044 bytes: 2 %
    utterance = Utterance("u", str(path))
    assert "2.0% are missing, --max_missing_share 0.01" in scan([utterance], Limits(max_missing_share=0.01))[0].reason
    verdict = scan([utterance], Limits(max_missing_share=0.02))[0]
    assert (verdict.reason, verdict.probe.n_samples) == ("", 16000 - 320)
    assert summary([verdict])[1] == "1 shorter than their headers say, by at most 2.0%: taken as they are"


def test_policies_let_rate_and_channels_pass(tmp_path):
    path = write(tmp_path / "x.wav", noise().reshape(-1, 2), 8000)
    utterance = Utterance("u", str(path))
    found = probe(str(path))
    assert "rate 8000" in judge(utterance, found, Limits())
    assert "2 channels" in judge(utterance, found, Limits(resample=True))
    assert judge(replace(utterance, channel=1), found, Limits(resample=True)) == ""
    assert "channel 2 asked for" in judge(replace(utterance, channel=2), found, Limits(rate_hz=8000))


def test_lengths_are_those_of_segment_and_speed(tmp_path):
    path = write(tmp_path / "x.wav", noise(32000))
    found = probe(str(path))
    segment = Utterance("u", str(path), recording="r", start_sec=0.5, end_sec=1.0)
    assert judge(segment, found, Limits(max_sec=0.6)) == ""
    assert "too long" in judge(replace(segment, speed=0.5), found, Limits(max_sec=0.6))
    assert "segment ends at 2.500 s, the recording at 2.000" in judge(replace(segment, end_sec=2.5), found, Limits())


def test_stored_length_betrays_truncation(tmp_path):
    utterance = Utterance("u", str(write(tmp_path / "x.wav", noise())))
    assert scan([utterance], Limits(), stored_sec={"u": 1.04})[0].reason == ""
    assert "utt2dur promises 2.000" in scan([utterance], Limits(), stored_sec={"u": 2.0})[0].reason


def test_order_and_result_do_not_depend_on_the_number_of_processes(tmp_path):
    utterances = []
    for n in range(9):
        path = write(tmp_path / f"{n}.wav", noise(1000 + n))
        utterances.append(Utterance(f"u{n}", str(path)))
    (tmp_path / "4.wav").write_bytes(b"")
    one, two = (scan(utterances, Limits(), nj=nj) for nj in (1, 2))
    assert one == two
    assert [v.probe.n_samples for v in one] == [1000, 1001, 1002, 1003, 0, 1005, 1006, 1007, 1008]


def test_share_of_bad_files_stops_and_the_list_names_them(tmp_path):
    good = write(tmp_path / "good.wav", noise())
    for n in range(1, 50):
        shutil.copy(good, tmp_path / f"{n}.wav")
    (tmp_path / "0.wav").write_bytes(b"")
    verdicts = scan([Utterance(f"u{n}", str(tmp_path / f"{n}.wav")) for n in range(50)], Limits())
    check_share(verdicts, Limits(max_bad_share=0.02), tmp_path)
    with pytest.raises(ValueError, match=r"1 of 50 .* at most 1.0%.*u0 .*0\.wav\): empty file.*--max_bad_share"):
        check_share(verdicts, Limits(), tmp_path)
    with pytest.raises(ValueError, match="1 of 1"):
        check_share(verdicts[:1], Limits(max_bad_share=1.0), tmp_path)
    write_quarantine(tmp_path / "q.tsv", verdicts)
    assert (tmp_path / "q.tsv").read_text() == f"u0\t{tmp_path / '0.wav'}\tempty file\n"
