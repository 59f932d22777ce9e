import math

import pytest
import torch

from bilevel.models.infonce import Objective as InfoNCE

F, D = 4, 3
LENS = torch.tensor([40, 23, 31])
SEEDS = torch.tensor([7, 8, 9])


@pytest.fixture
def feats():
    return torch.randn(3, 40, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def encoder(make_encoder):
    return make_encoder(F, D)


def build(**conf):
    torch.manual_seed(0)
    conf = {"context_frames": 8, "future_frames": 4, "hop_frames": 6, "n_negatives": 5, "min_frames": 1} | conf
    return InfoNCE(F, D, **conf).double()


def plane(future_frames, temperature, weight):
    """One context frame, states in the plane, one negative, and a given map W without bias."""
    infonce = InfoNCE(2, 2, 0, 1, future_frames, 9, n_negatives=1, temperature=temperature, min_frames=1)
    infonce.predict.weight.data.copy_(torch.tensor(weight))
    infonce.predict.bias.data.zero_()
    return infonce


def identity(feats, lens):
    return feats, lens


def test_windows_tile_long_utterances_and_split_short_ones_in_proportion():
    infonce = build()
    assert infonce.windows(torch.tensor([24, 12, 9, 2])) == [
        (0, 0, 8, 4),
        (0, 6, 8, 4),
        (0, 12, 8, 4),
        (1, 0, 8, 4),
        (2, 0, 6, 3),
        (3, 0, 1, 1),
    ]
    # An encoder that subsamples needs some frames; what cannot be split is left out.
    assert build(min_frames=3).windows(torch.tensor([9, 8, 2])) == [(0, 0, 6, 3), (1, 0, 5, 3)]


def test_a_case_computed_by_hand():
    # One context and one future frame an utterance; W = identity; the one negative is the other's future.
    infonce = plane(future_frames=1, temperature=0.5, weight=[[1.0, 0.0], [0.0, 1.0]])
    feats = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 5.0], [3.0, 4.0]]])
    loss = infonce(feats, torch.tensor([2, 2]), SEEDS[:2], identity).loss
    # cos(p_1, z_1) = 1, cos(p_1, z_2) = 0.6, cos(p_2, z_2) = 0.8, cos(p_2, z_1) = 0
    first, second = math.log1p(math.exp((0.6 - 1) / 0.5)), math.log1p(math.exp((0 - 0.8) / 0.5))
    assert loss.item() == pytest.approx((first + second) / 2)


def test_prediction_k_applies_the_map_k_times():
    # W turns by 90 degrees: predictions from (1, 0) are (0, 1), (-1, 0), (0, -1).
    infonce = plane(future_frames=3, temperature=1.0, weight=[[0.0, -1.0], [1.0, 0.0]])
    other = [[1.0, 0.0]] * 4  # its future is (1, 0) throughout, so the draw of the negative does not matter
    right = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    feats, lens = torch.tensor([right, other]), torch.tensor([4, 4])
    terms = []

    def nll(positive, negative):
        return math.log1p(math.exp(negative - positive))

    turns = [(0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)]
    for x, _ in turns:
        terms.append(nll(1.0, x))  # first utterance predicts right; negative (1, 0) has cosine x
    # The second predicts the same turns; its positives are (1, 0), its negatives one of the first one's futures.
    loss = infonce(feats, lens, SEEDS[:2], identity).loss
    z = torch.tensor(right[1:])
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    drawn = infonce._negatives(owner, SEEDS[:2])[3:, 0]
    for (x, y), index in zip(turns, drawn.tolist(), strict=True):
        terms.append(nll(x, x * float(z[index][0]) + y * float(z[index][1])))
    assert loss.item() == pytest.approx(sum(terms) / 6)


@pytest.mark.parametrize("sizes", [(3, 4, 2), (1, 9), (5, 1, 1, 5)])
def test_negatives_are_never_of_the_same_utterance_and_cover_all_others(sizes):
    infonce = build(n_negatives=200)
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    index = infonce._negatives(owner, SEEDS)
    assert index.shape == (sum(sizes), 200)
    for row, own in zip(index, owner, strict=True):
        assert set(row.tolist()) == set((owner != own).nonzero().flatten().tolist())


def test_negatives_of_a_lone_utterance_are_its_other_frames():
    index = build(n_negatives=100)._negatives(torch.zeros(4, dtype=torch.long), SEEDS)
    for i, row in enumerate(index):
        assert set(row.tolist()) == set(range(4)) - {i}
    assert build()._negatives(torch.zeros(1, dtype=torch.long), SEEDS).tolist() == [[0] * 5]


def test_negatives_are_drawn_alike_from_all_others():
    owner = torch.tensor([0, 0, 1, 2, 2, 2, 2])
    index = build(n_negatives=6000)._negatives(owner, SEEDS)[2]  # the one frame of utterance 1
    counts = torch.bincount(index, minlength=7)
    assert counts[2] == 0
    expected, std = 1000, math.sqrt(6000 * (1 / 6) * (5 / 6))
    assert all(abs(int(c) - expected) < 4 * std for i, c in enumerate(counts) if i != 2)


def test_constant_states_have_the_loss_of_chance(feats):
    infonce = build(n_negatives=6)
    constant = lambda x, n: (torch.ones(*x.shape[:2], D, dtype=x.dtype), n)  # noqa: E731
    assert infonce(feats, LENS, SEEDS, constant).loss.item() == pytest.approx(math.log(7))


def test_a_prediction_cannot_see_its_future(feats, encoder):
    infonce = build()
    feats.requires_grad_()
    predictions = []
    infonce.predict.register_forward_hook(lambda module, inputs, output: predictions.append(output))
    infonce(feats, LENS, SEEDS, encoder)
    windows = infonce.windows(LENS)
    assert len(windows) > 5
    assert len(predictions) == 4
    for k, (i, start, n_context, _) in enumerate(windows):
        for prediction in predictions:
            (grad,) = torch.autograd.grad(prediction[k].sum(), feats, retain_graph=True)
            seen = grad.abs().sum(-1) > 0
            expected = torch.zeros_like(seen)
            expected[i, start : start + n_context] = True  # the encoder sees its whole piece, and nothing else
            assert torch.equal(seen, expected)


def test_loss_does_not_depend_on_padding(feats, encoder):
    infonce = build()
    plain = infonce(feats, LENS, SEEDS, encoder)
    noisy = torch.nn.functional.pad(feats, (0, 0, 0, 5), value=9.0)
    noisy[1, 23:] = -4.0
    torch.testing.assert_close(infonce(noisy, LENS, SEEDS, encoder).loss, plain.loss)
    n_predictions = sum(future for *_, future in infonce.windows(LENS))
    assert int(plain.weight) == n_predictions


def test_gradient_matches_finite_differences(feats, encoder):
    infonce = build()

    def loss(weight, bias, w, b):
        encode = lambda x, n: torch.func.functional_call(  # noqa: E731
            encoder, {"linear.weight": weight, "linear.bias": bias}, (x, n)
        )
        heads = {"predict.weight": w, "predict.bias": b}
        return torch.func.functional_call(infonce, heads, (feats, LENS, SEEDS, encode)).loss

    values = [p.detach().clone().requires_grad_() for m in (encoder, infonce) for p in m.parameters()]
    assert torch.autograd.gradcheck(loss, values)


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_into_the_targets_is_a_choice(feats, detach):
    infonce = build(detach_targets=detach)
    infonce.predict.weight.data.copy_(torch.eye(3))
    states = feats[..., :D].clone().requires_grad_()
    infonce(states, torch.tensor([12, 12, 12]), SEEDS, identity).loss.backward()
    assert states.grad[:, 7].abs().sum() > 0  # the last context frame
    assert bool(states.grad[:, 8:12].any()) is not detach


def test_a_batch_too_short_for_any_window_gives_a_zero_loss_that_has_a_gradient(feats, encoder):
    infonce = build(min_frames=8)
    lens = torch.tensor([5, 9, 10])
    calls = []
    output = infonce(feats, lens, SEEDS, lambda x, n: calls.append(1) or encoder(x, n))
    output.loss.backward()
    assert not calls
    assert output.loss.item() == 0
    assert not infonce.predict.weight.grad.any()
    assert int(output.weight) == 0
    assert set(output.stats) == set(infonce(feats, LENS, SEEDS, encoder).stats)
