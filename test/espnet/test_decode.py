import itertools

import numpy as np
import pytest
import torch
import yaml

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
