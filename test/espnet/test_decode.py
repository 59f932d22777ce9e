import itertools

import numpy as np
import pytest
import torch
import yaml
from espnet2.asr.espnet_model import ESPnetASRModel

from bilevel.espnet.decode import decode
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.task import BilevelASRTask


def test_dump_sets_know_their_data(corpus, tmp_path):
    raw = DumpSet(corpus.root / "train")
    assert raw.type == "sound"
    assert raw.input_size() is None
    assert raw.speech_shapes() == [f"{k} {len(corpus.speech[k])}" for k in corpus.ids["train"]]
    option = "--valid_data_path_and_name_and_type"
    folder = corpus.root / "train"
    assert raw.data_options("valid") == [option, f"{folder}/wav.scp,speech,sound", option, f"{folder}/text,text,text"]
    (tmp_path / "feats.scp").write_text("a a.ark:3\n")
    (tmp_path / "utt2num_frames").write_text("a 17\n")
    (tmp_path / "feats_dim").write_text("40\n")
    features = DumpSet(tmp_path)
    assert (features.type, features.input_size(), features.speech_shapes()) == ("kaldi_ark", 40, ["a 17,40"])


def test_an_empty_dump_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected wav.scp or feats.scp; run stages 3 and 4"):
        DumpSet(tmp_path)


@pytest.fixture(scope="module")
def trained(kit, corpus):
    """A model whose best paths hold blanks, repetitions and every kind of unit."""
    args = kit.args()
    model = BilevelASRTask.build_model(args).eval()
    layer, generator = model.ctc.ctc_lo, torch.Generator().manual_seed(5)
    speech = [torch.from_numpy(corpus.speech[key])[None] for key in corpus.ids["unlab"]]
    with torch.no_grad():
        states = torch.cat([model.encode(row, torch.tensor([row.size(1)]))[0][0] for row in speech])
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.weight[1] = layer.weight[-1] = 0.0
        # Fresh states are all alike; from their mean, the scores of a frame are as good as random.
        layer.bias.copy_(-layer.weight @ states.mean(0))
        layer.bias[1] = layer.bias[-1] = -100.0  # never <unk> or <sos/eos>
    folder = corpus.root / "decoding"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args) | {"output_dir": str(folder)}))
    return folder, model


def run(folder, corpus, part=(0, 1), name="model.pth", **inference):
    inference = inference or {"decoder": "greedy"}
    return list(decode(folder / "config.yaml", folder / name, DumpSet(corpus.root / "unlab"), inference, "cpu", part))


@torch.no_grad()
def best_path(model, samples):
    """Units of the best path without repetitions and blanks, one utterance at a time."""
    speech = torch.from_numpy(np.asarray(samples))[None]
    states, lens = model.encode(speech, torch.tensor([speech.size(1)]))
    path = model.ctc.log_softmax(states)[0].argmax(-1).tolist()
    assert len(path) == int(lens[0])
    units, last = [], None
    for unit in path:
        if unit != last and unit != 0:
            units.append(unit)
        last = unit
    return path, units


def test_greedy_decoding_is_the_collapsed_best_path(trained, corpus):
    folder, model = trained
    found = dict(run(folder, corpus))
    paths = {}
    for key in corpus.ids["unlab"]:
        paths[key], units = best_path(model, corpus.speech[key])
        text = "".join(" " if model.token_list[unit] == "<space>" else model.token_list[unit] for unit in units)
        assert found[key] == text
    # The case is not trivial: blanks and repetitions were there to be dropped.
    assert len({unit for path in paths.values() for unit in path}) > 4
    assert sum(path.count(0) for path in paths.values()) > 5
    assert sum(a == b != 0 for path in paths.values() for a, b in itertools.pairwise(path)) > 5
    assert " " in "".join(found.values())


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_parts_cover_the_set_once(trained, corpus, n):
    folder, _ = trained
    whole = run(folder, corpus)
    parts = [row for k in range(n) for row in run(folder, corpus, (k, n))]
    assert len(parts) == len(whole) == 10
    assert dict(parts) == dict(whole)


def test_a_model_file_that_lacks_tensors_is_refused(trained, corpus):
    folder, model = trained
    state = model.state_dict()
    for name in ("ctc.ctc_lo.bias", "encoder.after_norm.weight"):
        state.pop(name)
    torch.save(state, folder / "lacking.pth")
    for inference in ({"decoder": "greedy"}, {"decoder": "beam", "beam_size": 2, "ctc_weight": 1.0}):
        with pytest.raises(ValueError, match=r"lacking.pth: lacks 2 tensors .*ctc.ctc_lo.bias.*same training"):
            run(folder, corpus, name="lacking.pth", **inference)


def test_prefix_search_of_one_hypothesis_agrees_where_the_path_is_clear(trained, corpus):
    folder, model = trained
    state = model.state_dict()
    state["ctc.ctc_lo.weight"] = 50 * state["ctc.ctc_lo.weight"]  # all mass on one path: both searches find it
    torch.save(state, folder / "sharp.pth")
    greedy = dict(run(folder, corpus, name="sharp.pth"))
    beam = dict(run(folder, corpus, name="sharp.pth", decoder="beam", beam_size=4, ctc_weight=1.0, maxlenratio=0.0))
    same = [key for key in greedy if greedy[key] == beam[key]]
    assert len(same) >= 8


HYBRID = {
    "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1},
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1, "dropout_rate": 0.0},
}
IDS = ["train-1", "train-3"]


def with_conf(**model_conf):
    return HYBRID | {"model_conf": HYBRID["model_conf"] | model_conf}


@pytest.fixture(scope="module")
def hybrid(kit):
    return kit.model(**HYBRID)


def test_the_heads_of_a_hybrid_model_belong_to_the_upper_level_alone(hybrid, corpus):
    hybrid.train()
    params = dict(hybrid.named_parameters())
    own = {"upper": hybrid.upper_params(), "lower": hybrid.lower_params()}
    for level, batch, heads in (
        ("upper", corpus.upper(IDS), {"ctc", "decoder"}),
        ("lower", corpus.lower(IDS), {"ssl"}),
    ):
        loss, stats, _ = hybrid(level=level, **batch)
        assert all(torch.isfinite(value) for key, value in stats.items() if "loss" in key and value is not None)
        grads = torch.autograd.grad(loss.sum(), list(params.values()), allow_unused=True)
        reached = {name for name, grad in zip(params, grads, strict=True) if grad is not None}
        assert {name.split(".")[0] for name in reached} == {"encoder"} | heads
        assert reached <= {name for name, p in params.items() if any(p is q for q in own[level])}
        assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


def test_the_lower_level_never_calls_the_decoder(kit, corpus, monkeypatch):
    model = kit.model(**HYBRID)
    monkeypatch.setattr(model.decoder, "forward", lambda *_, **__: pytest.fail("the decoder was called"))
    monkeypatch.setattr(model.ctc, "forward", lambda *_, **__: pytest.fail("the CTC head was called"))
    model(level="lower", **corpus.lower(IDS))


@torch.no_grad()
def test_the_hybrid_loss_per_token_is_espnet_s_loss_over_other_units(kit, corpus):
    batch = corpus.upper(IDS)
    ours, stats, n_tokens = kit.model(**HYBRID).eval()(**batch)
    theirs, their_stats, n_utts = kit.model(**with_conf(loss_per_token=False)).eval()(**batch)
    plain, plain_stats, _ = ESPnetASRModel.forward(kit.model(**HYBRID).eval(), **batch)
    assert (int(n_utts), int(n_tokens)) == (2, sum(len(corpus.text[key]) for key in IDS))
    torch.testing.assert_close(theirs, plain)
    for found, expected in ((ours, plain), *((stats[k], plain_stats[k]) for k in ("loss", "loss_ctc", "loss_att"))):
        torch.testing.assert_close(found * n_tokens, expected * n_utts)
    torch.testing.assert_close(their_stats["loss_att"], plain_stats["loss_att"])
    torch.testing.assert_close(stats["loss"], 0.3 * stats["loss_ctc"] + 0.7 * stats["loss_att"])


@torch.no_grad()
def test_a_hybrid_batch_is_the_token_weighted_mean_of_its_utterances(hybrid, corpus):
    hybrid.eval()
    loss, stats, weight = hybrid(**corpus.upper(IDS))
    alone = [hybrid(**corpus.upper([key])) for key in IDS]
    assert int(weight) == sum(int(w) for *_, w in alone)
    torch.testing.assert_close(loss, sum(x * w for x, _, w in alone) / weight, rtol=0, atol=1e-5)
    for name in ("loss_ctc", "loss_att"):
        torch.testing.assert_close(stats[name], sum(s[name] * w for _, s, w in alone) / weight, rtol=0, atol=1e-5)


def save(kit, folder, **changes):
    """A model's folder; the weights of the heads are scaled up, so that the hypotheses differ."""
    args = kit.args(**changes)
    model = kit.model(**changes)
    folder.mkdir()
    state = {k: 8 * v if k.startswith(("ctc.", "decoder.output_layer.")) else v for k, v in model.state_dict().items()}
    torch.save(state, folder / "model.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args) | {"output_dir": str(folder)}))
    return folder


def test_a_hybrid_model_is_decoded_by_either_head_and_by_both(kit, corpus, tmp_path):
    folder = save(kit, tmp_path / "hybrid", **HYBRID)
    # Untrained attention need not find an end: the length is bounded.
    beams = {
        w: run(folder, corpus, decoder="beam", beam_size=3, ctc_weight=w, maxlenratio=0.5) for w in (0.0, 0.3, 1.0)
    }
    for rows in beams.values():
        assert sorted(key for key, _ in rows) == sorted(corpus.ids["unlab"])
        assert all(isinstance(text, str) for _, text in rows)
    assert len({tuple(rows) for rows in beams.values()}) == 3


@pytest.mark.parametrize(
    ("changes", "used"),
    [({}, 1.0), (with_conf(ctc_weight=0.0), 0.0)],
    ids=["CTC alone", "attention alone"],
)
def test_a_model_of_one_head_is_searched_by_that_head(kit, corpus, tmp_path, changes, used, caplog):
    folder = save(kit, tmp_path / "single", **changes)
    options = {"decoder": "beam", "beam_size": 3, "maxlenratio": 0.5}
    wanted = run(folder, corpus, ctc_weight=used, **options)
    assert "one head only" not in caplog.text
    assert run(folder, corpus, ctc_weight=0.3, **options) == wanted
    assert f"one head only, so {used} is used" in caplog.text


def test_greedy_decoding_needs_ctc(kit, corpus, tmp_path):
    folder = save(kit, tmp_path / "attention", **with_conf(ctc_weight=0.0))
    with pytest.raises(ValueError, match="ctc_weight is 0, so there is no CTC to decode with"):
        run(folder, corpus)
