"""Stages 6 and 7 of pre-training: what makes them run again, and what they leave for the report."""

import json
import subprocess
import sys

import pytest

from bilevel.bin import pretrain as command
from bilevel.espnet import pretrain

FACTS = {"method", "corpus", "seed", "params", "results", "cost", "config_sha256", "commit"}
COMMAND = (
    "--train_dir train --valid_dir dev --stats_dir stats --config train.yaml --method birq --method_dir method "
    "--exp_dir exp --corpus x"
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`bilevel pretrain` without statistics and training: it lists what it would have done."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "dev"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").write_text("a a.wav\n")
    (tmp_path / "method").mkdir()
    (tmp_path / "method/birq.yaml").write_text("model_conf: {ssl: birq}\n")
    (tmp_path / "train.yaml").write_text("frontend: default\nmax_epoch: 4\n")
    done = []

    def collect_stats(config, args):
        done.append("stats")

    def train(config, args):
        done.append("train")
        (args.exp_dir / "checkpoint.pth").write_bytes(b"")
        (args.exp_dir / "cost.json").write_text('{"updates": 8, "passes": 12, "params": 345}')

    monkeypatch.setattr(pretrain, "collect_stats", collect_stats)
    monkeypatch.setattr(pretrain, "pretrain", train)

    def call(*options):
        done.clear()
        command.main([*COMMAND.split(), *options])
        return done

    return call


def test_each_stage_runs_once(run, capsys):
    assert run("--only_stats") == ["stats"]
    assert run("--only_stats") == []
    assert "skip: stats stats" in capsys.readouterr().out
    assert run() == ["train"]
    assert "skip" not in capsys.readouterr().out  # the training was not skipped, and nothing else counts
    assert run() == []
    assert "skip: exp pretrain" in capsys.readouterr().out


def test_pooled_sources_are_another_setting_of_both_stages(run):
    run("--only_stats")
    with pytest.raises(ValueError, match=r"stats: no statistics of .*\(pool_sources\); run stage 6 first"):
        run("--pool_sources")
    run()
    assert run("--only_stats", "--pool_sources") == ["stats"]
    with pytest.raises(ValueError, match=r"checkpoint of other data or settings .*pool_sources: None -> True"):
        run("--pool_sources")


def test_without_statistics_of_these_data_nothing_is_trained(run, tmp_path):
    with pytest.raises(ValueError, match=r"stats: no statistics .*\(nothing there\); run stage 6 first"):
        run()
    run("--only_stats")
    (tmp_path / "train/wav.scp").write_text("a a.wav\nb b.wav\n")
    with pytest.raises(ValueError, match=r"stats: no statistics .*\(content of train/wav.scp\); run stage 6 first"):
        run()
    assert not (tmp_path / "exp").exists()


def test_the_report_finds_a_run_without_error_rates(run, tmp_path):
    run("--only_stats")
    run("--label", "BiRQ, first")
    found = json.loads((tmp_path / "exp/result.json").read_text())
    assert set(found) == FACTS
    assert (found["method"], found["corpus"], found["seed"], found["params"]) == ("BiRQ, first", "x", 0, 345)
    assert (found["results"], found["cost"]) == ([], {"updates": 8, "passes": 12})


def test_a_stage_that_is_up_to_date_does_not_wait_for_espnet(run, tmp_path, root):
    run("--only_stats")
    run()
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from bilevel.bin.pretrain import main; main(sys.argv[1:]); "
    )
    code += "print(sorted({'torch', 'espnet2'} & sys.modules.keys()))"
    for options in (["--only_stats"], []):
        call = [sys.executable, "-c", code, str(root), *COMMAND.split(), *options]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout.startswith("skip: ")
        assert done.stdout.splitlines()[-1] == "[]"
