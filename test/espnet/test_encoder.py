import copy

import pytest
import torch
from espnet2.asr.ctc import CTC

from bilevel.espnet.encoder import LayerNormConformerEncoder, encode_features, mode, n_blocks

BLOCKS, DIM = 4, 16
LENS = torch.tensor([40, 29, 33])
PLAIN = {"pos_enc_layer_type": "abs_pos", "selfattention_layer_type": "selfattn"}


def build(**conf):
    torch.manual_seed(0)
    defaults = {
        "input_size": 8,
        "output_size": DIM,
        "attention_heads": 2,
        "num_blocks": BLOCKS,
        "linear_units": 24,
        "cnn_module_kernel": 7,
        "input_layer": "linear",
        "macaron_style": True,
        "rel_pos_type": "latest",
        "dropout_rate": 0.1,
        "positional_dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
    }
    return LayerNormConformerEncoder(**(defaults | conf))


@pytest.fixture
def feats():
    return torch.randn(3, 40, 8, generator=torch.Generator().manual_seed(1))


class Model(torch.nn.Module):
    """What `encode_features` takes."""

    def __init__(self, encoder, preencoder=None):
        super().__init__()
        self.encoder, self.preencoder = encoder, preencoder


OPTIONS = [
    {},
    {"input_layer": "conv2d"},
    {"attention_window": 6},
    {"checkpoint_layers": True},
    {"use_sdpa": True, "attention_window": 6, "checkpoint_layers": True},
    PLAIN,
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("conf", OPTIONS, ids=str)
def test_a_short_pass_is_the_beginning_of_the_whole_one(feats, conf, training):
    encoder, seen = build(**conf).train(training), []
    encoder.encoders[1].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    torch.manual_seed(3)  # the same dropout
    _, whole_lens, _ = encoder(feats, LENS)
    torch.manual_seed(3)
    states, lens, _ = encoder(feats, LENS, n_layers=2)
    assert torch.equal(states, seen[0][0] if isinstance(seen[0], tuple) else seen[0])
    assert torch.equal(lens, whole_lens)


def test_blocks_above_are_not_computed(feats):
    encoder, calls = build(), []
    for i, block in enumerate(encoder.encoders):
        block.register_forward_hook(lambda module, inputs, output, i=i: calls.append(i))
    encoder.after_norm.register_forward_hook(lambda module, inputs, output: calls.append("norm"))
    encoder(feats, LENS, n_layers=3)
    assert calls == [0, 1, 2]
    encoder(feats, LENS)
    assert calls[3:] == [0, 1, 2, 3, "norm"]


def test_a_given_mask_is_obeyed(feats):
    encoder = build().eval()
    padding = torch.arange(40) >= LENS.unsqueeze(1)
    for n_layers in (None, 2):
        states, lens, _ = encoder(feats, LENS, masks=padding, n_layers=n_layers)
        expected, expected_lens, _ = encoder(feats, LENS, n_layers=n_layers)
        assert torch.equal(states, expected)
        assert torch.equal(lens, expected_lens)


@pytest.mark.parametrize("n_layers", [None, 1])
@pytest.mark.parametrize("conf", [{}, {"use_sdpa": True}, PLAIN, PLAIN | {"use_sdpa": True}], ids=str)
def test_a_query_sees_its_window_and_nothing_else(feats, conf, n_layers):
    encoder = build(num_blocks=1, use_cnn_module=False, attention_window=6, **conf).eval()
    feats.requires_grad_()
    states = encoder(feats, LENS, n_layers=n_layers)[0]
    for i, t in ((0, 0), (0, 20), (1, 28), (2, 31)):
        (grad,) = torch.autograd.grad(along(states)[i, t].sum(), feats, retain_graph=True)
        expected = torch.zeros(3, 40, dtype=torch.bool)
        expected[i, max(0, t - 3) : min(int(LENS[i]), t + 4)] = True
        assert torch.equal(grad.abs().sum(-1) > 0, expected)


@torch.no_grad()
@pytest.mark.parametrize("n_layers", [None, 3])
@pytest.mark.parametrize("conf", OPTIONS[1:], ids=str)
def test_states_do_not_depend_on_padding(feats, conf, n_layers):
    encoder = build(**conf).eval()
    states, lens, _ = encoder(feats, LENS, n_layers=n_layers)
    noisy, longest = feats.clone(), torch.tensor([40, 29, 33])
    for row, n in zip(noisy, longest.tolist(), strict=True):
        row[n:] = 1e3
    assert torch.isfinite(encoder(noisy, LENS, n_layers=n_layers)[0]).all()
    for i, n in enumerate(lens.tolist()):
        alone = encoder(feats[i : i + 1, : LENS[i]], LENS[i : i + 1], n_layers=n_layers)[0][0]
        torch.testing.assert_close(states[i, :n], alone[:n], rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder(noisy, LENS, n_layers=n_layers)[0][i, :n], alone[:n], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_window_wider_than_the_speech_is_none(feats):
    valid = torch.arange(40) < LENS.unsqueeze(1)
    wide, plain = (build(**conf).eval()(feats, LENS)[0][valid] for conf in ({"attention_window": 80}, {}))
    torch.testing.assert_close(wide, plain)
    assert not torch.allclose(build(attention_window=20).eval()(feats, LENS)[0][valid], plain, atol=1e-3)


def along(states):
    """States times a fixed random direction; the sum of their squares has no gradient, as the final norm fixes it."""
    return states * torch.randn(states.shape, generator=torch.Generator().manual_seed(4))


def gradient(encoder, feats, n_layers, dropout=True):
    torch.manual_seed(3)
    states, lens = encode_features(Model(encoder), feats, LENS, n_layers, dropout)
    valid = torch.arange(states.size(1)) < lens.unsqueeze(1)
    used = [p for name, p in encoder.named_parameters() if n_layers is None or not name.startswith("after_norm")]
    grads = torch.autograd.grad(along(states)[valid].sum(), used, allow_unused=True)
    return states, grads


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("n_layers", [None, 2])
@pytest.mark.parametrize("conf", [{"stochastic_depth_rate": 0.3}, {"use_sdpa": True, "attention_window": 8}], ids=str)
def test_checkpoints_change_nothing_but_the_memory(feats, conf, n_layers, dropout):
    # Without dropout the pass runs in evaluation mode, and its backward pass when the encoder is in training again.
    plain, checked = (build(checkpoint_layers=on, **conf).train() for on in (False, True))
    assert list(plain.state_dict()) == list(checked.state_dict())
    (states, grads), (found, found_grads) = (gradient(e, feats, n_layers, dropout) for e in (plain, checked))
    assert torch.equal(found, states)
    for a, b in zip(found_grads, grads, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))


def test_checkpoints_run_each_block_twice_and_keep_its_input_only(feats):
    def kept(encoder):
        """Numbers that the graph of a pass holds, apart from parameters."""
        params, sizes = {p.data_ptr() for p in encoder.parameters()}, {}

        def pack(x):
            if x.data_ptr() not in params:
                sizes[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            states = encoder(feats, LENS)[0]
        return states, sum(sizes.values())

    encoder, calls = build(checkpoint_layers=True), []
    encoder.encoders[2].feed_forward.register_forward_hook(lambda *_: calls.append(1))
    (states, n_checked), (_, n_plain) = kept(encoder), kept(build())
    assert n_checked < n_plain / 5
    assert encoder.encoders[0].self_attn.attn is None
    assert len(calls) == 1
    states.sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        encoder(feats, LENS)
    assert len(calls) == 3
    twin = copy.deepcopy(encoder).eval()
    assert torch.equal(twin(feats, LENS)[0], encoder.eval()(feats, LENS)[0])


def test_a_pass_without_dropout_leaves_every_mode_as_it_was(feats):
    encoder = build(stochastic_depth_rate=0.5).train()
    encoder.encoders[0].eval()  # someone has frozen a block
    before = [m.training for m in encoder.modules()]
    model = Model(encoder)
    first, second = (encode_features(model, feats, LENS, n_layers=3, dropout=False)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert [m.training for m in encoder.modules()] == before
    assert not torch.equal(*(encode_features(model, feats, LENS, n_layers=3)[0] for _ in range(2)))
    with pytest.raises(RuntimeError, match="stop"), mode(encoder, training=False):
        raise RuntimeError("stop")
    assert [m.training for m in encoder.modules()] == before


@torch.no_grad()
def test_the_preencoder_comes_first(feats):
    class Double(torch.nn.Module):
        def forward(self, x, lens):
            return torch.nn.functional.dropout(2 * x, 0.5, self.training), lens

    model = Model(build().eval(), Double().train())
    states, _ = encode_features(model, feats, LENS, n_layers=2, dropout=False)
    assert torch.equal(states, model.encoder(2 * feats, LENS, n_layers=2)[0])


@torch.no_grad()
@pytest.mark.parametrize("conf", [{}, {"attention_window": 6, "checkpoint_layers": True}], ids=str)
def test_what_espnet_asks_for_still_works(feats, conf):
    encoder = build(**conf).eval()
    (states, all_states), _, _ = encoder(feats, LENS, return_all_hs=True)
    assert len(all_states) == BLOCKS
    for k in range(1, BLOCKS + 1):
        assert torch.equal(all_states[k - 1], encoder(feats, LENS, n_layers=k)[0])
    torch.testing.assert_close(states, encoder.after_norm(all_states[-1]))
    inter = build(interctc_layer_idx=[2], **conf).eval()
    (_, [(layer, middle)]), _, _ = inter(feats, LENS, ctc=CTC(odim=5, encoder_output_size=DIM))
    assert layer == 2
    torch.testing.assert_close(middle, inter.after_norm(inter(feats, LENS, n_layers=2)[0]))
    assert encode_features(Model(inter), feats, LENS)[0].shape == (3, 40, DIM)


def test_only_encoders_that_can_stop_have_blocks():
    assert n_blocks(build()) == BLOCKS
    assert n_blocks(torch.nn.LSTM(2, 2)) == 0


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"attention_window": 1}, "attention_window 1: expected 2 states or more"),
        ({"attention_window": 6, "use_flash_attn": True}, "attention_window: flash attention has no window"),
        ({"attention_window": 6, "compile_backend": "eager"}, "attention_window: compiled blocks lose it"),
    ],
)
def test_options_that_cannot_be_are_refused(conf, words):
    with pytest.raises(ValueError, match=words):
        build(**conf)


def test_passes_that_cannot_be_are_refused(feats):
    encoder = build()
    for n_layers in (0, BLOCKS + 1):
        with pytest.raises(ValueError, match=f"n_layers {n_layers}: expected one of 1..4"):
            encoder(feats, LENS, n_layers=n_layers)
    with pytest.raises(ValueError, match="n_layers: not together with return_all_hs"):
        encoder(feats, LENS, n_layers=2, return_all_hs=True)
    with pytest.raises(Exception, match="6 frames: the subsampling needs more than 7"):
        build(input_layer="conv2d")(feats[:, :6], torch.tensor([6, 6, 6]), n_layers=2)


@pytest.mark.parametrize("conf", [{}, {"checkpoint_layers": True}], ids=str)
def test_compiled_blocks_give_the_same_gradients_and_names(feats, conf):
    """By a backend that runs the captured graph as it is: what is captured is what is tested."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    plain, compiled = (build(compile_backend=b, **conf) for b in (None, backend))
    compiled.load_state_dict(plain.state_dict())
    found = []
    for encoder in (plain, compiled):
        torch.manual_seed(0)  # the same dropout
        for n_frames in (40, 33):
            along(encoder(feats[:, :n_frames], LENS.clamp(max=n_frames))[0]).sum().backward()
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(graphs) == 1  # one for all blocks and lengths
    assert len(found[0]) == len(found[1]) > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
