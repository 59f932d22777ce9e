"""What a pass of pre-training needs of a GPU: the host never waits for it, and spectra keep their precision.

On the device "meta" tensors have shapes and no values, so whatever would read one of them on the host (a length, a
number of masked frames, a test of a value) raises there: what passes does not wait on a GPU either.
"""

import argparse
from contextlib import nullcontext

import pytest
import torch

import bilevel.espnet.ssl_task  # noqa: F401  (registers our front-ends and encoders)
from bilevel.espnet.parts import build_parts
from bilevel.espnet.ssl_model import BilevelSSLModel
from bilevel.espnet.trainer import on_device

ENCODER = {"output_size": 16, "attention_heads": 2, "num_blocks": 2, "linear_units": 16, "rel_pos_type": "latest"}
SIZES = {"codebook_size": 24, "codebook_dim": 4, "p_mask": 0.05, "mask_span_frames": 8}
FRONTENDS = {
    "default": ({"n_mels": 20}, {"input_layer": "conv2d"}, {"stack": 4}),
    "delta_stack": ({"n_mels": 8}, {"input_layer": "linear"}, {"stack": 1}),
}


def build(ssl, frontend="default", encoder=None, **conf):
    torch.manual_seed(0)
    frontend_conf, encoder_conf, ssl_conf = FRONTENDS[frontend]
    args = argparse.Namespace(
        input_size=None, frontend=frontend, frontend_conf=frontend_conf, normalize="utterance_mvn", normalize_conf={},
        preencoder=None, encoder="conformer_layernorm", encoder_conf=ENCODER | encoder_conf | (encoder or {}),
    )  # fmt: skip
    parts = build_parts(args)
    ssl_conf = SIZES | ssl_conf | conf | ({"label_layer": 1} if ssl == "birq" else {})
    return BilevelSSLModel(parts.frontend, parts.normalize, None, parts.encoder, ssl=ssl, ssl_conf=ssl_conf)


def batch():
    lens = torch.tensor([16000, 12500, 9000])
    speech = torch.randn(3, 16000, generator=torch.Generator().manual_seed(1))
    return {"speech": speech, "speech_lengths": lens, "seeds": torch.tensor([3, 4, 5])}


@pytest.mark.parametrize("frontend", list(FRONTENDS))
@pytest.mark.parametrize(
    ("ssl", "conf"),
    [
        ("bestrq", {"encoder": {"use_sdpa": True, "checkpoint_layers": True}}),
        ("bestrq", {"n_codebooks": 2, "encoder": {"attention_window": 8}}),
        ("birq", {}),
        ("birq", {"detach_labels": True}),
    ],
)
def test_a_pass_reads_no_value(ssl, frontend, conf, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # torch has none for meta
    model = build(ssl, frontend, **conf).to("meta")
    inputs = on_device({"lower": [batch()]}, "meta")["lower"][0]
    assert {name: value.device.type for name, value in inputs.items()} == {
        "speech": "meta", "speech_lengths": "meta", "seeds": "cpu",
    }  # fmt: skip
    loss, stats, _ = model(**inputs)
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.encoder.parameters())
    assert all(value.device.type == "meta" for value in stats.values())


@pytest.mark.parametrize("frontend", list(FRONTENDS))
def test_features_keep_full_precision_under_autocast(frontend):
    model, inputs = build("bestrq", frontend), batch()
    expected, _ = model.features(inputs["speech"], inputs["speech_lengths"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = model.features(inputs["speech"], inputs["speech_lengths"])
    assert torch.equal(found, expected)


def test_such_a_device_refuses_what_would_wait():
    lens = torch.empty(3, dtype=torch.long, device="meta")
    for wait in (lambda: lens.tolist(), lambda: int(lens.max()), lambda: lens.nonzero(), lambda: lens[lens > 2]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()
