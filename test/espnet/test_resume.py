"""Trainings through ESPnet's main, straight and interrupted."""

import argparse
import json
import logging
import shutil

import numpy as np
import pytest
import torch
import yaml
from asr_kit import CONFIG

from bilevel.espnet import commands
from bilevel.espnet.checkpoint import intact, recover_checkpoint
from bilevel.espnet.task import BilevelASRTask
from bilevel.espnet.trainer import BilevelTrainer

DROPOUT = {f"{name}dropout_rate": 0.2 for name in ("", "positional_", "attention_")}
SPECAUG = {"specaug": "specaug", "specaug_conf": {"apply_time_warp": False, "apply_time_mask": False}}


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def train(corpus):
    """A training of 4 epochs of 6 steps: explore 0-7, joint 8-15, finetune 16-23."""
    config = CONFIG | SPECAUG | {"encoder_conf": CONFIG["encoder_conf"] | DROPOUT}
    path = corpus.root / "resume.yaml"
    path.write_text(yaml.safe_dump(config))
    args = argparse.Namespace(
        train_dir=corpus.root / "train",
        valid_dir=corpus.root / "dev",
        unlabelled_dir=corpus.root / "unlab",
        token_list=corpus.token_list,
        token_type="char",
        bpemodel=None,
        pretrained=None,
        seed=3,
        ngpu=0,
    )

    def run(out_dir, crash_in_epoch=None):
        steps = BilevelTrainer.train_one_epoch.__func__

        def interrupted(cls, **kwargs):
            if kwargs["reporter"].get_epoch() == crash_in_epoch:
                raise Crash
            return steps(cls, **kwargs)

        level = logging.getLogger().level
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BilevelTrainer, "train_one_epoch", classmethod(interrupted))
            # A process of its own would start from any random state.
            torch.manual_seed(crash_in_epoch or 0)
            commands.train(path, args, out_dir, corpus.root / "stats")
        logging.getLogger().setLevel(level)

    return run


@pytest.fixture(scope="module")
def straight(train, corpus):
    out_dir = corpus.root / "straight"
    train(out_dir)
    return out_dir


def difference(a, b):
    """Largest absolute difference of all tensors and numbers of two checkpoints; inf where their forms differ."""
    if isinstance(a, torch.Tensor):
        return float((a.double() - b.double()).abs().max()) if a.shape == b.shape and a.numel() else 0.0
    if isinstance(a, dict):
        return max((difference(a[k], b[k]) for k in a), default=0.0) if a.keys() == b.keys() else float("inf")
    if isinstance(a, (list, tuple)):
        pairs = zip(a, b, strict=True)
        return max((difference(x, y) for x, y in pairs), default=0.0)
    if isinstance(a, float):
        return 0.0 if a == b or (a != a and b != b) else abs(a - b)
    return 0.0 if a == b else float("inf")


def load(out_dir):
    return torch.load(out_dir / "checkpoint.pth", map_location="cpu", weights_only=True)


def curves(out_dir):
    return [json.loads(line) for line in (out_dir / "train.jsonl").read_text().splitlines()]


def assert_same_end(out_dir, straight):
    ours, theirs = load(out_dir), load(straight)
    for part in ("model", "optimizers", "schedulers"):
        assert difference(ours[part], theirs[part]) == 0.0, part
    assert curves(out_dir) == curves(straight)


def test_the_training_moves_and_ramps(straight):
    rows = curves(straight)
    assert [row["update"] for row in rows] == [6, 12, 18, 24]
    # gamma is k/8 in joint step k, and its mean is over the joint steps of an epoch.
    assert ["gamma" in row for row in rows] == [False, True, True, False]
    assert [row["gamma"] for row in rows[1:3]] == pytest.approx([(1 + 2 + 3 + 4) / 8 / 4, (5 + 6 + 7 + 8) / 8 / 4])
    assert [row["passes"] for row in rows] == pytest.approx([1, 10 / 6, 10 / 6, 1])
    # The first epoch explores, so its recognition head is as it was born; the lower level goes on being validated.
    assert "valid_upper_loss" not in rows[0]
    assert len({row["valid_upper_loss"] for row in rows[1:]}) == 3
    assert len({row["valid_lower_loss"] for row in rows}) == 4
    cost = json.loads((straight / "cost.json").read_text())
    assert (cost["updates"], cost["passes"]) == (24, 32)


def test_interruptions_in_every_stage_change_nothing(train, straight, corpus):
    out_dir = corpus.root / "interrupted"
    for epoch in (2, 3, 4):
        with pytest.raises(Crash):
            train(out_dir, crash_in_epoch=epoch)
        assert sorted(load(out_dir)["reporter"]["stats"]) == list(range(1, epoch))
    train(out_dir)
    assert_same_end(out_dir, straight)


def test_a_truncated_checkpoint_costs_an_epoch_and_nothing_else(train, straight, corpus, caplog):
    out_dir = corpus.root / "truncated"
    with pytest.raises(Crash):
        train(out_dir, crash_in_epoch=3)
    last = out_dir / "checkpoint.pth"
    data = last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    train(out_dir)
    assert "checkpoint.pth is damaged" in caplog.text
    assert_same_end(out_dir, straight)


@pytest.mark.parametrize("n_bytes", [0, 1, 100, 5000])
def test_any_torn_checkpoint_is_recognised(straight, tmp_path, n_bytes):
    data = (straight / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.prev.pth").write_bytes(data)
    (tmp_path / "checkpoint.pth").write_bytes(data[:n_bytes])
    recover_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint.pth").read_bytes() == data


def test_a_flipped_bit_is_recognised(straight, tmp_path):
    data = (straight / "checkpoint.pth").read_bytes()
    whole = torch.load(straight / "checkpoint.pth", map_location="cpu", weights_only=True)
    file, random, n_found = tmp_path / "flipped.pth", np.random.default_rng(0), 0
    for place in random.integers(0, len(data), 40):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(random.integers(8))
        file.write_bytes(flipped)
        if intact(file):  # padding and time stamps: nothing that is loaded
            assert difference(torch.load(file, map_location="cpu", weights_only=True), whole) == 0.0
        n_found += not intact(file)
    assert n_found > 20


def test_two_damaged_checkpoints_are_refused(tmp_path):
    for name in ("checkpoint.pth", "checkpoint.prev.pth"):
        (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"checkpoint.prev.pth: damaged.*delete it to train from the start"):
        recover_checkpoint(tmp_path)


@pytest.mark.parametrize("left", [None, b"", b"torn"])
def test_a_model_file_that_was_not_finished_is_written_again(straight, tmp_path, left):
    shutil.copy(straight / "checkpoint.pth", tmp_path)
    if left is not None:
        (tmp_path / "4epoch.pth").write_bytes(left)
    recover_checkpoint(tmp_path)
    states = [torch.load(folder / "4epoch.pth", weights_only=True) for folder in (tmp_path, straight)]
    assert difference(*map(dict, states)) == 0.0


def test_a_good_checkpoint_and_an_empty_folder_are_left_alone(straight, tmp_path):
    recover_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())
    shutil.copy(straight / "checkpoint.pth", tmp_path)
    (tmp_path / "checkpoint.prev.pth").write_bytes(b"old")
    recover_checkpoint(tmp_path)
    assert (tmp_path / "checkpoint.pth").read_bytes() == (straight / "checkpoint.pth").read_bytes()
    assert (tmp_path / "checkpoint.prev.pth").read_bytes() == b"old"


def test_the_average_is_the_mean_of_the_n_best(straight):
    stats = load(straight)["reporter"]["stats"]
    losses = {epoch: values["valid"]["loss"] for epoch, values in stats.items()}
    best = sorted(losses, key=losses.get)[:2]
    states = [torch.load(straight / f"{epoch}epoch.pth", weights_only=True) for epoch in best]
    average = torch.load(straight / "valid.loss.ave.pth", weights_only=True)
    for name, value in average.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2)
    # The frozen quantizer survives averaging as it is.
    assert torch.equal(average["ssl.quantizer.codebook"], states[0]["ssl.quantizer.codebook"])


def test_the_model_file_holds_every_tensor(straight):
    model, _ = BilevelASRTask.build_model_from_file(straight / "config.yaml", straight / "valid.loss.ave.pth", "cpu")
    saved = torch.load(straight / "valid.loss.ave.pth", weights_only=True)
    assert difference(dict(model.state_dict()), saved) == 0.0
