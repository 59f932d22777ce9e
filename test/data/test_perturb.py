"""Speed perturbation changes ids, speakers and durations, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from bilevel.bin.perturb import main
from bilevel.data.datadir import read_datadir, write_datadir
from bilevel.data.perturb import parse_factors, perturb_datadir
from bilevel.data.record import Utterance
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate


@pytest.fixture
def src(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.random.uniform(-0.5, 0.5, 16000), 16000)
    rows = [
        Utterance("s1-a", str(tmp_path / "x.wav"), "one", "s1", recording="r", start_sec=0.0, end_sec=0.9, lang="de"),
        Utterance("s2-b", str(tmp_path / "x.wav"), "two", "s2", recording="r", start_sec=0.5, end_sec=1.0, lang="de"),
    ]
    write_datadir(tmp_path / "train", rows)
    return tmp_path / "train"


def test_copies(src, tmp_path):
    assert perturb_datadir(src, tmp_path / "train_sp", (0.9, 1.0, 1.1)) == 6
    rows = {u.id: u for u in read_datadir(tmp_path / "train_sp")}
    assert sorted(rows) == ["s1-a", "s2-b", "sp0.9-s1-a", "sp0.9-s2-b", "sp1.1-s1-a", "sp1.1-s2-b"]
    for original in read_datadir(src):
        assert rows[original.id] == original
        fast = rows[f"sp1.1-{original.id}"]
        assert replace(fast, id=original.id, speaker=original.speaker, speed=1.0) == original
        assert (fast.speaker, fast.speed) == (f"sp1.1-{original.speaker}", 1.1)
    assert validate(tmp_path / "train_sp") == []


def test_durations_are_divided_by_the_factor(src, tmp_path):
    perturb_datadir(src, tmp_path / "sp", (0.9, 1.0, 1.1))
    durations = {key: float(value) for key, value in read_scp(tmp_path / "sp" / "utt2dur").items()}
    assert durations["s1-a"] == 0.9
    assert durations["sp0.9-s1-a"] == pytest.approx(1.0, abs=1e-6)
    assert durations["sp1.1-s2-b"] == pytest.approx(0.5 / 1.1, abs=1e-6)


def test_factors():
    assert parse_factors("0.9 1.0  1.1") == (0.9, 1.0, 1.1)
    for bad in ("", "1 x", "0", "-1", "nan", "1 1.0", "100"):
        with pytest.raises(ValueError, match=r"0\.9 1\.0 1\.1"):
            parse_factors(bad)


def test_refuses_to_perturb_twice_or_in_place(src, tmp_path):
    with pytest.raises(ValueError, match="onto the set"):
        perturb_datadir(src, src, (0.9, 1.0))
    perturb_datadir(src, tmp_path / "sp", (0.9, 1.0))
    with pytest.raises(ValueError, match=r"sp0\.9-s1-a is speed-perturbed already"):
        perturb_datadir(tmp_path / "sp", tmp_path / "spsp", (0.9, 1.0))


def test_command_skips_finished_work(src, tmp_path, capsys):
    argv = ["--in_dir", str(src), "--out_dir", str(tmp_path / "sp"), "--factors", "0.9 1.0"]
    main(argv)
    assert "4 utterances" in capsys.readouterr().out
    main(argv)
    assert "skip: " in capsys.readouterr().out
    main([*argv[:-1], "0.9"])
    assert "2 utterances" in capsys.readouterr().out
