"""Pre-training through ESPnet's main: one and several sources, local steps, resume, start from another training."""

import argparse
import json
import logging
import shutil

import pytest
import torch
import yaml
from asr_kit import CONFIG

from bilevel.espnet import pretrain
from bilevel.espnet.kmeans import relabel
from bilevel.espnet.ssl_task import BilevelSSLTask
from bilevel.espnet.task import BilevelASRTask
from bilevel.espnet.trainer import BilevelTrainer

CODES = {"codebook_size": 24, "codebook_dim": 4, "p_mask": 0.1, "mask_span_frames": 8}
KEYS = ("frontend", "frontend_conf", "normalize", "encoder", "encoder_conf", "optim", "optim_conf", "batch_type")
KEYS += ("grad_clip", "num_workers", "best_model_criterion", "use_matplotlib", "use_tensorboard")
DROPOUT = {f"{name}dropout_rate": 0.2 for name in ("", "positional_", "attention_")}
SSL = {key: CONFIG[key] for key in KEYS} | {
    "model": "bilevel_ssl",
    "model_conf": {"ssl": "bestrq", "ssl_conf": CODES},
    "solver": "local",
    "solver_conf": {"n_inner": 0},
    "plan_conf": {"explore": 1.0},
    "health_conf": {},
    "batch_size": 6,
    "max_epoch": 3,
    "num_iters_per_epoch": 4,
    "keep_nbest_models": 3,
}
BIRQ = {"model_conf": {"ssl": "birq", "ssl_conf": CODES | {"label_layer": 1}}}
PTLOC = {"solver_conf": {"n_inner": 1, "lr": 0.001}}


@pytest.fixture(scope="module")
def sources(corpus):
    """The unlabelled set as two sources of different size."""
    folder = corpus.root / "two_sources"
    shutil.copytree(corpus.root / "unlab", folder)
    (folder / "utt2source").write_text("".join(f"{k} {'ab'[i > 5]}\n" for i, k in enumerate(corpus.ids["unlab"])))
    return folder


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    """Pre-train with changes of the configuration; returns the folder."""

    def train(changes, train_dir=None, out=None, **options):
        folder = out or tmp_path_factory.mktemp("ssl")
        path = folder / "given.yaml"
        conf = {k: SSL[k] | v if isinstance(v, dict) and k != "model_conf" else v for k, v in changes.items()}
        path.write_text(yaml.safe_dump(SSL | conf))
        args = argparse.Namespace(
            train_dir=train_dir or corpus.root / "unlab",
            valid_dir=corpus.root / "dev",
            stats_dir=folder / "stats",
            exp_dir=folder / "exp",
            **{"targets_dir": None, "pretrained": None, "pool_sources": False, "seed": 3, "ngpu": 0} | options,
        )
        level = logging.getLogger().level
        pretrain.collect_stats(path, args)
        pretrain.pretrain(path, args)
        (folder / "exp" / "run.json").write_text("{}")  # as `bilevel pretrain` does at the end
        logging.getLogger().setLevel(level)
        return folder / "exp"

    return train


def weights(exp_dir):
    return torch.load(exp_dir / "latest.pth", weights_only=True)


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def curves(exp_dir):
    return [json.loads(line) for line in (exp_dir / "train.jsonl").read_text().splitlines()]


def test_every_step_takes_every_source_and_a_resumed_run_equals_a_straight_one(run, sources, monkeypatch, tmp_path):
    changes = BIRQ | PTLOC | {"encoder_conf": SSL["encoder_conf"] | DROPOUT}
    straight = run(changes, sources)
    steps = BilevelTrainer.train_one_epoch.__func__

    def interrupted(cls, **kwargs):
        if kwargs["reporter"].get_epoch() == 3:
            raise KeyboardInterrupt
        return steps(cls, **kwargs)

    monkeypatch.setattr(BilevelTrainer, "train_one_epoch", classmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        run(changes, sources, out=tmp_path)
    monkeypatch.undo()
    moments = torch.load(tmp_path / "exp" / "solver" / "2epoch.pth", weights_only=True)["moments"]
    assert [m["n_steps"] for m in moments] == [8, 8]  # two sources, two epochs of four steps
    torch.manual_seed(99)  # a process of its own would start from any random state
    resumed = run(changes, sources, out=tmp_path)
    assert same(weights(straight), weights(resumed))
    assert curves(straight)[-1]["passes"] == 6  # K + 1 for each of two sources, each with labels of half the encoder
    assert json.loads((straight / "cost.json").read_text())["passes"] == 6 * 12


def test_without_the_solvers_state_a_run_does_not_go_on(run, sources, tmp_path):
    run(PTLOC | {"max_epoch": 1}, sources, out=tmp_path)
    (tmp_path / "exp" / "solver" / "1epoch.pth").unlink()
    with pytest.raises(ValueError, match=r"1epoch.pth.*missing.*restore"):
        run(PTLOC, sources, out=tmp_path)


def test_local_steps_of_length_zero_are_plain_training(run, sources):
    plain = run({"max_epoch": 1}, sources)
    still = run({"max_epoch": 1, "solver_conf": {"n_inner": 1, "lr": 0.0}}, sources)
    moved = run({"max_epoch": 1} | PTLOC, sources)
    assert same(weights(plain), weights(still))
    assert not same(weights(plain), weights(moved))


def test_pooled_sources_are_one(run, sources):
    exp_dir = run({"max_epoch": 1}, sources, pool_sources=True)
    assert [path.name for path in (exp_dir.parent / "stats/sources").iterdir()] == ["all"]
    assert curves(exp_dir)[-1]["passes"] == 1


def test_a_constant_encoder_raises_the_alarm(run, monkeypatch):
    from bilevel.espnet import ssl_model

    encode = ssl_model.encode_features
    monkeypatch.setattr(ssl_model, "encode_features", lambda *a, **k: (encode(*a, **k)[0] * 0.0, encode(*a, **k)[1]))
    with pytest.raises(ValueError, match=r"step 5: self-supervision has collapsed: ssl_(enhanced_perp|feature_std)"):
        run(BIRQ | {"health_conf": {"window": 6}})  # longer than an epoch


def test_recognition_starts_from_the_encoder_and_refuses_another(run, corpus, capsys):
    from bilevel.espnet.pretrained import adopted, init_options

    exp_dir = run({"max_epoch": 1})
    assert adopted(exp_dir)["encoder_conf"]["output_size"] == 16
    (exp_dir / "run.json").unlink()
    with pytest.raises(ValueError, match="has not ended; let it finish"):
        adopted(exp_dir)
    options = ["--config", str(corpus.root / "config.yaml"), "--token_list", str(corpus.token_list)]
    options += ["--token_type", "char", "--output_dir", str(corpus.root / "from_pretrained")]
    (corpus.root / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    found = init_options(BilevelASRTask, options, exp_dir)
    said = capsys.readouterr().out
    n_values = sum(v.numel() for k, v in weights(exp_dir).items() if k.startswith("encoder."))
    assert f"encoder: {n_values:,} of {n_values:,} values" in said
    assert "not taken: global_step, ssl" in said
    args = BilevelASRTask.get_parser().parse_args(options + found)
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

    model = BilevelASRTask.build_model(args)
    for item in args.init_param:
        load_pretrained_model(item, model, args.ignore_init_mismatch)
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in weights(exp_dir).items() if k.startswith("encoder."))
    wider = CONFIG | {"encoder_conf": CONFIG["encoder_conf"] | {"output_size": 24}}
    (corpus.root / "wider.yaml").write_text(yaml.safe_dump(wider))
    options[1] = str(corpus.root / "wider.yaml")
    with pytest.raises(ValueError, match=r"of the encoder, expected at least 90%.*set encoder"):
        init_options(BilevelASRTask, options, exp_dir)


def test_clusters_of_states_are_labels_that_hubert_learns(run, corpus, tmp_path):
    import numpy as np

    from bilevel.espnet.dump import DumpSet
    from bilevel.espnet.inference import load_model
    from bilevel.espnet.kmeans import layer_states

    exp_dir = run({"max_epoch": 1})
    sets = [corpus.root / "unlab", corpus.root / "dev"]
    for out in ("first", "second"):
        relabel(exp_dir, 1, 5, 1.0, sets, tmp_path / out, seed=0, device="cpu")
    lines = (tmp_path / "first" / "unlab").read_text().splitlines()
    assert lines == (tmp_path / "second" / "unlab").read_text().splitlines()
    model, _ = load_model(BilevelSSLTask, exp_dir / "config.yaml", exp_dir / "latest.pth", "cpu")
    states = dict(layer_states(model, 1, DumpSet(sets[0]), "cpu"))
    table = {line.split()[0]: np.array(line.split()[1:], dtype=int) for line in lines}
    assert {key: len(row) for key, row in table.items()} == {key: len(rows) for key, rows in states.items()}
    # Frames of one label are nearer to their own mean than to that of another label, for nearly all frames.
    frames, labels = np.concatenate([states[k] for k in table]), np.concatenate(list(table.values()))
    means = np.stack([frames[labels == i].mean(0) for i in np.unique(labels)])
    nearest = np.unique(labels)[((frames[:, None] - means) ** 2).sum(-1).argmin(1)]
    assert (nearest == labels).mean() > 0.9
    conf = {"codebook_size": 5, "p_mask": 0.1, "mask_span_frames": 8}
    hubert = run({"model_conf": {"ssl": "hubert", "ssl_conf": conf}}, targets_dir=tmp_path / "first")
    assert curves(hubert)[-1]["train_lower_loss"] < curves(hubert)[0]["train_lower_loss"]


def test_the_audio_to_fit_on_is_counted_at_the_rate_of_the_model(run, corpus, tmp_path):
    exp_dir = run({"max_epoch": 1})
    config = yaml.safe_load((exp_dir / "config.yaml").read_text())
    seconds = sum(len(corpus.speech[key]) for key in corpus.ids["unlab"]) / 16000
    fitted = {}
    for fs in ("16k", "8k"):
        (exp_dir / "config.yaml").write_text(
            yaml.safe_dump(config | {"frontend_conf": CONFIG["frontend_conf"] | {"fs": fs}})
        )
        relabel(exp_dir, 1, 5, seconds / 3600, [corpus.root / "unlab"], tmp_path / fs, seed=0, device="cpu")
        fitted[fs] = json.loads((tmp_path / fs / "kmeans.json").read_text())["frames_fitted"]
    n_frames = sum(len(line.split()) - 1 for line in (tmp_path / "16k" / "unlab").read_text().splitlines())
    assert fitted["16k"] == n_frames
    assert 0.4 < fitted["8k"] / n_frames < 0.8  # half as many samples make up the same time


def test_a_source_without_its_row_is_named(run, sources, corpus, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(sources, broken)
    rows = (broken / "utt2source").read_text().splitlines()
    (broken / "utt2source").write_text("\n".join(rows[1:]) + "\n")
    with pytest.raises(ValueError, match=f"no source for 1 utterances, such as {corpus.ids['unlab'][0]}"):
        run({}, broken)
