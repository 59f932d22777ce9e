import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bilevel.models.bestrq import Objective as BestRQ
from bilevel.models.birq import Objective as BiRQ
from bilevel.models.birq import gumbel_noise, gumbel_softmax
from bilevel.models.counter_rng import uniform
from bilevel.models.masked_prediction import encode_masked
from bilevel.models.rows import choose

F, D, V, BLOCKS, K = 4, 3, 7, 4, 2
LENS = torch.tensor([61, 40, 53])
SEEDS = torch.tensor([7, 8, 9])
SIZES = {"codebook_size": V, "codebook_dim": 4, "p_mask": 0.05, "mask_span_frames": 8}


@pytest.fixture
def feats():
    return 2 * torch.randn(3, 61, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 5


@pytest.fixture
def encoder(make_blocks):
    return make_blocks(F, D, 4, BLOCKS)


def build(cls=BiRQ, **conf):
    torch.manual_seed(0)
    extra = {"label_layer": K} if cls is BiRQ else {}
    return cls(F, D, BLOCKS, **(extra | SIZES | conf)).double()


def gradients(loss, *modules):
    params = [p for module in modules for p in module.parameters()]
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]


def counted(birq):
    return birq.masking.masks(SEEDS, LENS, 61)[1][:, :15] & (torch.arange(15) < (LENS // 4).unsqueeze(1))


def rows(mask, seeds=SEEDS):
    return choose(mask, mask, seeds)


def test_loss_equals_its_definition(feats, encoder):
    birq = build(tau=0.7, logit_scale=3.0, z_norm="layer")
    masked, frames = birq.masking.hide(feats, LENS, SEEDS)[0], counted(birq).nonzero().tolist()
    states, clean = encoder(masked, LENS)[0], encoder(feats, LENS, n_layers=K)[0]
    labels, codes = birq.labels(feats, LENS), birq.quantizer.codebook
    upper, lower = [], []
    for i, t in frames:
        z = (clean[i, t] - clean[i, t].mean()) / (clean[i, t].var(unbiased=False) + 1e-5).sqrt()
        projected = z @ birq.label_quantizer.projection
        u = uniform(SEEDS[i : i + 1] * 2**20 + t, V, 1)[0].double()
        noisy = 3.0 * (codes @ projected) / projected.norm() - (-(1 - u).log()).log()
        weights = (noisy / 0.7).exp() / (noisy / 0.7).exp().sum()
        log_q = torch.log_softmax(birq.head.weight @ states[i, t] + birq.head.bias, 0)
        upper.append(-(weights * log_q).sum())
        lower.append(-log_q[labels[i, t]])
    upper, lower = torch.stack(upper).mean(), torch.stack(lower).mean()
    output = birq(feats, LENS, SEEDS, encoder)
    assert len(frames) >= 5
    assert int(output.weight) == len(frames)
    torch.testing.assert_close(output.stats["ssl_loss_enhanced"], upper.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(output.stats["ssl_loss_anchor"], lower.detach())
    torch.testing.assert_close(output.loss, 0.1 * upper + 2.4 * lower)


def test_without_enhanced_labels_it_is_bestrq_times_the_weight(feats, make_blocks):
    encoder = make_blocks(F, D, 4, BLOCKS, p_dropout=0.3).train()
    birq, bestrq = build(w_enhanced=0.0), build(BestRQ)
    bestrq.head.load_state_dict(birq.head.state_dict())
    assert torch.equal(birq.labels(feats, LENS), bestrq.labels(feats, LENS))
    outputs, grads = [], []
    for objective in (birq, bestrq):
        torch.manual_seed(1)  # the same dropout
        outputs.append(objective(feats, LENS, SEEDS, encoder))
        grads.append(gradients(outputs[-1].loss, encoder, objective.head))
    torch.testing.assert_close(outputs[0].loss, 2.4 * outputs[1].loss)
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, 2.4 * expected)
    for name in ("ssl_acc", "ssl_masked", "ssl_label_perplexity"):
        assert torch.equal(outputs[0].stats[name], outputs[1].stats[name])


def test_labels_pass_gradient_to_the_blocks_below_them_and_to_no_other(feats, encoder):
    with_labels, without = (
        dict(
            zip(
                (name for name, _ in encoder.named_parameters()),
                gradients(build(detach_labels=detach)(feats, LENS, SEEDS, encoder).loss, encoder),
                strict=True,
            )
        )
        for detach in (False, True)
    )
    # Independent of that difference: the gradient by the labels alone, with what is predicted held fixed.
    birq = build()
    hidden = encoder(birq.masking.hide(feats, LENS, SEEDS)[0], LENS)[0][counted(birq)]
    log_q = birq.head(hidden).log_softmax(-1).detach()
    scores, _ = birq.enhanced_scores(feats, LENS, encoder, rows(counted(birq)))
    soft = gumbel_softmax(scores + gumbel_noise(rows(counted(birq)), scores), birq.tau, hard=False)
    expected = gradients(0.1 * -(soft * log_q).sum(-1).mean(), encoder)
    for (name, full), by_labels in zip(with_labels.items(), expected, strict=True):
        torch.testing.assert_close(full - without[name], by_labels, rtol=1e-6, atol=1e-9)
        reached = name.startswith("embed") or name.startswith(("blocks.0", "blocks.1"))
        assert bool(by_labels.any()) is reached, name


@pytest.mark.parametrize(
    ("conf", "with_graph"), [({}, True), ({"detach_labels": True}, False), ({"w_enhanced": 0.0}, False)]
)
def test_two_passes_the_second_clean_and_short(feats, encoder, conf, with_graph):
    birq = build(**conf)
    birq(feats, LENS, SEEDS, encoder)
    (first, *full), (second, *short) = encoder.calls
    assert full == [None, True]
    assert short == [K, with_graph]
    assert torch.equal(first, birq.masking.hide(feats, LENS, SEEDS)[0])
    assert torch.equal(second, feats)


@pytest.mark.parametrize(("conf", "ratio"), [({}, 1 + K / BLOCKS), ({"detach_labels": True}, 1 + K / (3 * BLOCKS))])
def test_floating_point_operations_of_the_blocks(feats, encoder, conf, ratio):
    def flops(objective):
        with FlopCounterMode(display=False) as counter:
            objective(feats, LENS, SEEDS, encoder).loss.backward()
        counts = counter.get_flop_counts()
        return sum(sum(counts[f"BlockEncoder.blocks.{i}"].values()) for i in range(BLOCKS))

    # Forward once and backward twice the products of a block.
    assert flops(build(BestRQ)) == 3 * BLOCKS * 2 * (3 * 15 * D * D)
    assert flops(build(**conf)) == ratio * flops(build(BestRQ))


def scores_of(birq, feats, lens, encoder):
    """Noise-free logits of all states: (B, T', V)."""
    n_states = feats.size(1) // 4
    everywhere = torch.ones(len(feats), n_states, dtype=torch.bool)
    return birq.enhanced_scores(feats, lens, encoder, rows(everywhere, torch.arange(len(feats))))[0].view(
        len(feats), n_states, -1
    )


@pytest.mark.parametrize("z_norm", ["layer", "utterance"])
def test_labels_do_not_depend_on_batch_padding_or_restart(feats, encoder, z_norm):
    birq = build(z_norm=z_norm)
    scores, labels = scores_of(birq, feats, LENS, encoder), birq.labels(feats, LENS)
    noisy = torch.nn.functional.pad(feats, (0, 0, 0, 12), value=-7.0)
    noisy[1, 40:] = 1e3
    for i, n in enumerate((LENS // 4).tolist()):
        alone = scores_of(birq, feats[i : i + 1, : LENS[i]], LENS[i : i + 1], encoder)
        torch.testing.assert_close(alone[0, :n], scores[i, :n])
        torch.testing.assert_close(scores_of(birq, noisy, LENS, encoder)[i, :n], scores[i, :n])
    again = build(z_norm=z_norm, seed=5)
    assert not torch.allclose(scores_of(again, feats, LENS, encoder), scores)
    again.load_state_dict(birq.state_dict())
    assert torch.equal(scores_of(again, feats, LENS, encoder), scores)
    assert torch.equal(again.labels(feats, LENS), labels)
    assert torch.equal(scores_of(build(z_norm=z_norm), feats, LENS, encoder), scores)  # a restart without checkpoint


def test_loss_does_not_depend_on_order_or_padding(feats, encoder):
    birq = build()
    plain = birq(feats, LENS, SEEDS, encoder)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(birq(feats[order], LENS[order], SEEDS[order], encoder).loss, plain.loss)
    padded = torch.nn.functional.pad(feats, (0, 0, 0, 9), value=3.0)
    torch.testing.assert_close(birq(padded, LENS, SEEDS, encoder).loss, plain.loss)
    parts = [birq(feats[i : i + 1, :n], LENS[i : i + 1], SEEDS[i : i + 1], encoder) for i, n in enumerate(LENS)]
    merged = sum(p.loss * p.weight for p in parts) / sum(p.weight for p in parts)
    torch.testing.assert_close(merged, plain.loss)


def test_only_masked_states_matter(feats, encoder):
    birq = build()

    def perturbed(where):
        def encode(x, n, n_layers=None, dropout=True):
            states, lens = encoder(x, n, n_layers, dropout)
            noise = 10 * torch.randn(states.shape, dtype=states.dtype) * where.unsqueeze(-1)
            return (states + noise if n_layers is None else states), lens

        return birq(feats, LENS, SEEDS, encode).loss

    plain = birq(feats, LENS, SEEDS, encoder).loss
    assert torch.equal(perturbed(~counted(birq)), plain)
    assert not torch.isclose(perturbed(counted(birq)), plain)


def test_dropout_of_the_label_pass_is_a_choice(feats, make_blocks):
    encoder = make_blocks(F, D, 4, BLOCKS, p_dropout=0.5).train()

    def twice(**conf):
        return [scores_of(build(**conf), feats, LENS, encoder) for _ in range(2)]

    assert torch.equal(*twice())
    torch.manual_seed(0)
    birq = build(label_dropout=True)
    assert not torch.equal(*(scores_of(birq, feats, LENS, encoder) for _ in range(2)))
    assert encoder.training


def test_straight_through_is_one_hot_forward_and_soft_backward():
    noisy = torch.randn(5, V, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, V, dtype=torch.float64)
    soft, hard = (gumbel_softmax(noisy, 0.5, hard) for hard in (False, True))
    torch.testing.assert_close(hard, torch.nn.functional.one_hot(noisy.argmax(-1), V).double())
    torch.testing.assert_close(soft, (noisy / 0.5).softmax(-1))
    (by_hard,) = torch.autograd.grad((hard * weight).sum(), noisy)
    (by_soft,) = torch.autograd.grad((soft * weight).sum(), noisy)
    torch.testing.assert_close(by_hard, by_soft)
    assert by_soft.abs().sum() > 0.1


def test_without_noise_a_small_temperature_gives_the_nearest_code(feats, encoder):
    birq = build(gumbel=False, tau=1e-5)
    output = birq(feats, LENS, SEEDS, encoder)
    scores, _ = birq.enhanced_scores(feats, LENS, encoder, rows(counted(birq)))
    hidden = encoder(birq.masking.hide(feats, LENS, SEEDS)[0], LENS)[0][counted(birq)]
    expected = torch.nn.functional.cross_entropy(birq.head(hidden), scores.argmax(-1))
    torch.testing.assert_close(output.stats["ssl_loss_enhanced"], expected.detach())
    assert float(output.stats["ssl_enhanced_entropy"]) < 1e-6


@pytest.mark.parametrize("logit_scale", [1.0, 10.0])
def test_noise_changes_the_label_as_often_as_gumbel_max_says(logit_scale, feats, encoder):
    """Noise takes code j with probability softmax(s)_j, so it keeps the best code with the largest of these."""
    birq = build(logit_scale=logit_scale, tau=0.1)
    flips, expected = [], []
    for draw in range(200):
        seeds = SEEDS + 1000 * draw  # other masks, too: the counted frames change with the seeds
        encoded = encode_masked(birq.masking, feats, LENS, seeds, encoder)
        scores, _ = birq.enhanced_scores(feats, LENS, encoder, encoded.counted)
        expected.append(float(1 - scores.detach().softmax(-1).amax(-1).mean()))
        flips.append(float(birq(feats, LENS, seeds, encoder).stats["ssl_noise_flips"]))
    assert np.mean(flips) == pytest.approx(np.mean(expected), abs=4 * np.std(flips) / math.sqrt(len(flips)))
    assert np.std(flips) > 0


def test_gumbel_noise_has_its_law_and_is_a_function_of_seed_and_position():
    mask = torch.ones(3, 20, dtype=torch.bool)
    noise = gumbel_noise(rows(mask), torch.empty(60, 2000)).double()
    n = noise.numel()
    assert abs(float(noise.mean()) - 0.5772157) < 4 * 1.2825 / math.sqrt(n)
    assert abs(float(noise.var()) - math.pi**2 / 6) < 4 * math.sqrt(4.4 * (math.pi**2 / 6) ** 2 / n)
    # P(noise > x) = 1 - exp(-exp(-x)), in the tail that decides which code wins.
    tail = 1 - math.exp(-math.exp(-6))
    assert abs(float((noise > 6).double().mean()) - tail) < 4 * math.sqrt(tail / n)
    assert torch.isfinite(noise).all()
    mask[0] = False
    mask[1, :5] = False
    fewer = gumbel_noise(rows(mask), torch.empty(35, 2000)).double()
    assert torch.equal(fewer, torch.cat([noise[25:40], noise[40:]]))
    # The maximum of scores plus noise is a draw from their softmax.
    scores = torch.tensor([2.0, 1.0, 0.0, 0.0])
    draws = scores + gumbel_noise(
        rows(torch.ones(20000, 1, dtype=torch.bool), torch.arange(20000)), torch.empty(20000, 4)
    )
    share = torch.bincount(draws.argmax(-1), minlength=4) / 20000
    torch.testing.assert_close(share, scores.softmax(-1), rtol=0, atol=4 * 0.5 / math.sqrt(20000))


@pytest.mark.parametrize("conf", [{}, {"separate_head": True, "z_norm": "utterance", "gumbel": False}])
def test_gradient_matches_finite_differences(feats, encoder, conf):
    birq = build(w_enhanced=1.0, w_anchor=0.5, logit_scale=2.0, **conf)
    modules = {"encoder": encoder, "birq": birq}
    names = [(m, n) for m, module in modules.items() for n, _ in module.named_parameters()]

    def loss(*values):
        table = dict(zip(names, values, strict=True))
        mine, theirs = ({k: v for (m, k), v in table.items() if m == module} for module in ("birq", "encoder"))
        encode = lambda *args, **kwargs: torch.func.functional_call(encoder, theirs, args, kwargs)  # noqa: E731
        return torch.func.functional_call(birq, mine, (feats[:2], LENS[:2], SEEDS[:2], encode)).loss

    values = [p.detach().clone().requires_grad_() for module in modules.values() for p in module.parameters()]
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_a_separate_head_hears_of_enhanced_labels_alone(feats, encoder):
    shared, separate, anchor = build(), build(separate_head=True), build(w_enhanced=0.0)
    separate.enhanced_head.load_state_dict(separate.head.state_dict())
    losses = [b(feats, LENS, SEEDS, encoder).loss for b in (shared, separate, anchor)]
    torch.testing.assert_close(losses[0], losses[1])  # equal heads are as good as one
    by_head, by_enhanced = gradients(losses[1], separate.head), gradients(losses[1], separate.enhanced_head)
    for first, second, both, alone in zip(
        by_head, by_enhanced, gradients(losses[0], shared.head), gradients(losses[2], anchor.head), strict=True
    ):
        torch.testing.assert_close(first + second, both)
        torch.testing.assert_close(first, alone)


def test_codes_are_shared_unless_asked_otherwise():
    shared, separate = build(), build(separate_codebook=True)
    assert torch.equal(shared.label_quantizer.codebook, shared.quantizer.codebook)
    assert not torch.allclose(separate.label_quantizer.codebook, separate.quantizer.codebook)
    assert torch.equal(shared.label_quantizer.projection, separate.label_quantizer.projection)
    assert shared.label_quantizer.projection.shape == (D, 4)
    assert {n.split(".")[0] for n, _ in shared.named_parameters()} == {"head"}


def test_statistics_of_enhanced_labels(feats, encoder):
    birq = build()
    stats = birq(feats, LENS, SEEDS, encoder).stats
    scores, z = birq.enhanced_scores(feats, LENS, encoder, rows(counted(birq)))
    labels = birq.labels(feats, LENS)[:, :15][counted(birq)]
    share = torch.bincount(scores.argmax(-1), minlength=V).double() / len(scores)
    entropy = -(share[share > 0] * share[share > 0].log()).sum()
    assert float(stats["ssl_enhanced_perplexity"]) == pytest.approx(float(entropy.exp()), rel=1e-5)
    assert float(stats["ssl_agreement"]) == pytest.approx(float((scores.argmax(-1) == labels).double().mean()))
    assert float(stats["ssl_feature_std"]) == pytest.approx(float(z.detach().std(0, correction=0).mean()))
    # Without noise and with logits of zero the label says nothing.
    flat = build(gumbel=False, logit_scale=0.0)(feats, LENS, SEEDS, encoder).stats
    assert float(flat["ssl_enhanced_entropy"]) == pytest.approx(math.log(V))
    assert float(flat["ssl_noise_flips"]) == 0
    # A collapse of the label layer shows in spite of the noise.
    torch.nn.init.zeros_(encoder.embed.linear.weight)
    collapsed = birq(feats, LENS, SEEDS, encoder).stats
    assert float(collapsed["ssl_enhanced_perplexity"]) == pytest.approx(1)
    assert float(collapsed["ssl_feature_std"]) == pytest.approx(0, abs=1e-6)


def test_under_autocast_losses_are_in_float32(feats, make_blocks):
    encoder, birq = make_blocks(F, D, 4, BLOCKS).float(), build().float()
    exact = birq(feats.float(), LENS, SEEDS, encoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = birq(feats.float(), LENS, SEEDS, encoder)
    assert half.loss.dtype == torch.float32
    torch.testing.assert_close(half.loss, exact.loss, rtol=0.05, atol=0)


@pytest.mark.parametrize(("n_blocks", "label_layer"), [(2, 1), (5, 4), (8, 6), (10, 7)])
def test_labels_come_from_seven_tenths_of_the_depth(n_blocks, label_layer):
    assert BiRQ(F, D, n_blocks, codebook_size=V).label_layer == label_layer


@pytest.mark.parametrize(
    ("n_blocks", "conf", "words"),
    [
        (4, {"label_layer": 4}, "label_layer 4 of an encoder with 4 blocks: expected one of 1..3"),
        (4, {"label_layer": 0}, "label_layer 0 of an encoder with 4 blocks"),
        (0, {}, "label_layer 0 of an encoder with 0 blocks"),
        (4, {"tau": 0.0}, "tau 0.0: expected a temperature above 0"),
    ],
)
def test_what_cannot_be_is_refused(n_blocks, conf, words):
    with pytest.raises(ValueError, match=words):
        BiRQ(F, D, n_blocks, codebook_size=V, **conf)


def test_a_batch_without_masked_frames_gives_a_zero_loss_that_has_a_gradient(feats, encoder):
    birq = build(p_mask=0.0)
    output = birq(feats, LENS, SEEDS, encoder)
    output.loss.backward()
    assert output.loss.item() == 0
    assert not birq.head.weight.grad.any()
    assert int(output.weight) == 0
    assert set(output.stats) == set(build()(feats, LENS, SEEDS, encoder).stats)
    assert all(torch.isfinite(value) for value in output.stats.values())
