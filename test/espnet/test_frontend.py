import pytest
import torch
from espnet2.layers.stft import Stft
from scipy.signal import savgol_filter

from bilevel.espnet.ctc_check import encoder_length
from bilevel.espnet.frontend import DeltaStackFrontend, DeviceStft, differences

CONF = {"n_fft": 400, "win_length": 400, "hop_length": 160, "fs": 16000, "center": False}
LENS = torch.tensor([9000, 6100, 7777])


@pytest.fixture
def speech():
    speech = torch.randn(3, 9000, generator=torch.Generator().manual_seed(0))
    for row, n in zip(speech, LENS, strict=True):
        row[n:] = 0
    return speech


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_differences_are_slopes_of_regression_lines(reach):
    x, lens = torch.randn(2, 30, 4, dtype=torch.float64), torch.tensor([30, 17])
    found = differences(x, lens, reach)
    for row, out, n in zip(x, found, lens.tolist(), strict=True):
        expected = savgol_filter(row[:n].numpy(), 2 * reach + 1, polyorder=1, deriv=1, axis=0, mode="nearest")
        torch.testing.assert_close(out[:n], torch.from_numpy(expected))


def test_forty_bins_become_240_values_at_20_ms(speech):
    frontend = DeltaStackFrontend(**CONF)
    feats, lens = frontend(speech, LENS)
    static, static_lens = frontend.logmel(speech, LENS)
    assert frontend.output_size() == 240
    assert frontend.hop_length == 320
    assert torch.equal(lens, static_lens // 2)
    assert feats.shape == (3, int(lens.max()), 240)
    first = differences(static, static_lens, 2)
    frames = torch.cat([static, first, differences(first, static_lens, 2)], dim=-1)
    for k in range(int(lens[0])):
        assert torch.equal(feats[0, k], frames[0, 2 * k : 2 * k + 2].flatten())
    assert not feats[1, lens[1] :].any()


def test_features_do_not_depend_on_padding(speech):
    frontend = DeltaStackFrontend(stack=3, **CONF)
    feats, lens = frontend(speech, LENS)
    noisy = torch.nn.functional.pad(speech, (0, 5000), value=0.3)
    for row, n in zip(noisy, LENS, strict=True):
        row[n:] = 0.3
    for i, n in enumerate(lens.tolist()):
        alone, alone_lens = frontend(speech[i : i + 1, : LENS[i]], LENS[i : i + 1])
        assert int(alone_lens) == n
        torch.testing.assert_close(alone[0, :n], feats[i, :n], rtol=0, atol=1e-4)
        torch.testing.assert_close(frontend(noisy, LENS)[0][i, :n], feats[i, :n], rtol=0, atol=1e-4)


@pytest.mark.parametrize("conf", [{"stack": 0}, {"delta_frames": 0}])
def test_what_cannot_be_is_refused(conf):
    with pytest.raises(ValueError, match="expected 1 or more"):
        DeltaStackFrontend(**conf)


@torch.no_grad()
@pytest.mark.parametrize("ssl", ["bestrq", "birq"])
def test_a_model_of_the_papers_shape_trains_both_levels(kit, corpus, ssl):
    ssl_conf = {"stack": 1, "codebook_size": 24, "p_mask": 0.02, "mask_span_frames": 20}
    changes = {
        "frontend": "delta_stack",
        "frontend_conf": {"stack": 2, "n_mels": 20},
        "encoder_conf": {"input_layer": "linear", "attention_window": 20},
        "model_conf": {"ssl": ssl, "ssl_conf": ssl_conf},
    }
    model = kit.model(**changes).eval()
    ids = ["train-1", "train-3"]
    loss, _, weight = model(level="lower", **corpus.lower(ids))
    alone = [model(level="lower", **corpus.lower([key])) for key in ids]
    merged = sum(part * w for part, _, w in alone) / sum(w for *_, w in alone)
    torch.testing.assert_close(loss, merged, rtol=0, atol=1e-5)
    assert int(weight) > 5
    assert torch.isfinite(model(**corpus.upper(ids))[0])
    states, lens = model.encode(*(corpus.upper(ids[:1])[k] for k in ("speech", "speech_lengths")))
    assert states.size(1) == int(lens[0])
    # Lengths for the check of CTC are computed without data.
    n_samples = int(corpus.upper(ids[:1])["speech_lengths"][0])
    assert encoder_length(kit.model(**changes), None)(n_samples) == int(lens[0])


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_spectrum_and_lengths_are_those_of_espnet(center, channels):
    conf = {"n_fft": 400, "win_length": 400, "hop_length": 160, "center": center}
    speech = torch.randn(3, 9000, *channels, generator=torch.Generator().manual_seed(0))
    (expected, expected_lens), (found, lens) = Stft(**conf)(speech, LENS), DeviceStft(**conf)(speech, LENS)
    assert torch.equal(lens, expected_lens)
    assert torch.equal(found, expected)
    assert not found[1, int(lens[1]) :].any()
    assert found[1, int(lens[1]) - 1].any()
    assert torch.equal(DeviceStft(**conf)(speech)[0], Stft(**conf)(speech)[0])
