"""Resuming: with the same data and settings, or not at all."""

import argparse

import pytest
import yaml

from bilevel.bin import _training, train
from bilevel.data.lock import lock
from bilevel.espnet import commands


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`bilevel train` without training: it leaves a checkpoint, and ends before the last epoch when `crash` is set."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text("a hello\n")
    (tmp_path / "tokens.txt").write_text("<blank>\n")
    (tmp_path / "method").mkdir()
    (tmp_path / "method/bljust.yaml").write_text("penalty_conf: {gamma_max: 1.0}\n")
    seen = []

    def call(crash=False, seed=0, **config):
        def fake(file, args, out_dir, stats_dir):
            seen.append(yaml.safe_load(file.read_text()))
            (out_dir / "checkpoint.pth").write_bytes(b"")
            if crash:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(commands, "train", fake)
        (tmp_path / "train.yaml").write_text(yaml.safe_dump({"optim_conf": {"lr": 0.1}, "max_epoch": 4} | config))
        train.main(
            "--train_dir train --valid_dir dev --token_list tokens.txt --stats_dir stats --config train.yaml "
            f"--method bljust --method_dir method --exp_dir exp --corpus x --seed {seed}".split()
        )
        return seen[-1]

    call.seen = seen
    return call


def test_an_interrupted_training_goes_on_with_the_same_settings(run, tmp_path):
    with pytest.raises(OSError, match="No space"):
        run(crash=True)
    assert not (tmp_path / "exp/.done/train.json").exists()
    run()
    assert len(run.seen) == 2
    run()
    assert len(run.seen) == 2  # finished: nothing to do


@pytest.mark.parametrize("crash", [True, False])
def test_other_settings_are_refused_and_named_and_nothing_is_overwritten(run, tmp_path, crash):
    if crash:
        with pytest.raises(OSError, match="No space"):
            run(crash=True)
    else:
        run()
    before = {p: p.read_bytes() for p in (tmp_path / "exp").rglob("*") if p.is_file()}
    with pytest.raises(
        ValueError, match=r"grad_clip: None -> 1\.0; optim_conf\.lr: 0\.1 -> 0\.2; seed: 0 -> 1\).*asr_tag"
    ):
        run(optim_conf={"lr": 0.2}, grad_clip=1.0, seed=1)
    (tmp_path / "train/text").write_text("a hello\nb world\n")
    with pytest.raises(ValueError, match=r"\(content of train/text\)"):
        run()
    assert {p: p.read_bytes() for p in (tmp_path / "exp").rglob("*") if p.is_file()} == before
    assert len(run.seen) == 1


def test_more_epochs_are_trained_on_but_not_fewer_nor_with_other_changes(run, capsys):
    run()
    assert run(max_epoch=6)["max_epoch"] == 6
    assert "goes on to 6 instead of 4 epochs" in capsys.readouterr().out
    with pytest.raises(ValueError, match="max_epoch: 6 -> 5"):
        run(max_epoch=5)
    with pytest.raises(ValueError, match="max_epoch: 6 -> 8"):
        run(max_epoch=8, optim_conf={"lr": 0.2})


def test_without_a_checkpoint_settings_are_free(run, tmp_path):
    with pytest.raises(OSError, match="No space"):
        run(crash=True)
    (tmp_path / "exp/checkpoint.pth").unlink()
    run(optim_conf={"lr": 0.2})
    assert run.seen[-1]["optim_conf"] == {"lr": 0.2}


def test_a_folder_in_use_is_refused(run, tmp_path):
    with lock(tmp_path / "exp"), pytest.raises(ValueError, match="exp is in use by process"):
        run()
    assert not run.seen


def test_what_an_encoder_brings_along_is_said_and_overrides_come_last(tmp_path, capsys):
    """Front-end to encoder are those of the pre-training, whatever the configuration says of them."""
    exp = tmp_path / "exp"
    exp.mkdir()
    for name in ("latest.pth", "run.json"):
        (exp / name).write_text("{}")
    (exp / "config.yaml").write_text("encoder: conformer\nencoder_conf: {output_size: 8, num_blocks: 2}\n")
    (tmp_path / "mine.yaml").write_text(
        "encoder: conformer\nencoder_conf: {output_size: 96, checkpoint_layers: true}\n"
    )
    (tmp_path / "supervised.yaml").write_text("solver: penalty\n")
    args = argparse.Namespace(fs=16000, method="supervised", method_dir=tmp_path, config=[tmp_path / "mine.yaml"])
    args.set, args.pretrained = ["encoder_conf.num_blocks=3"], exp
    merged = _training.merge_config(args)
    assert merged["encoder_conf"] == {"output_size": 8, "num_blocks": 3, "checkpoint_layers": True}
    assert merged["solver"] == "penalty"
    assert f"note: as in {exp}, not as configured: encoder_conf" in capsys.readouterr().out
