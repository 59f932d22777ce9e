import math

import pytest
import torch

from bilevel.models.bestrq import BestRQ, normalise_utterances

F, D, V = 4, 3, 11
LENS = torch.tensor([61, 40, 53])
SEEDS = torch.tensor([7, 8, 9])


@pytest.fixture
def feats():
    feats = torch.randn(3, 61, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 2 * feats + 5


@pytest.fixture
def bestrq():
    torch.manual_seed(0)
    return BestRQ(F, D, codebook_size=V, codebook_dim=4, p_mask=0.05, mask_span_frames=8).double()


@pytest.fixture
def encoder(make_encoder):
    return make_encoder(F, D, 4)


def test_normalisation_is_per_utterance_over_valid_frames(feats):
    found = normalise_utterances(feats, LENS)
    for row, out, n in zip(feats, found, LENS.tolist(), strict=True):
        valid = row[:n]
        expected = (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(out[:n], expected)
        assert not out[n:].any()


def test_labels_are_those_of_the_stacked_normalised_frames(bestrq, feats):
    labels = bestrq.labels(feats, LENS)
    assert labels.shape == (3, 16)
    n = int(LENS[0])
    row = (feats[0] - feats[0].mean(0)) / (feats[0].var(0, unbiased=False) + 1e-5).sqrt()
    for k in range(n // 4):
        x = row[4 * k : 4 * k + 4].reshape(-1)  # frame by frame
        scores = bestrq.quantizer.codebook.double() @ (bestrq.quantizer.projection.double().T @ x)
        assert int(labels[0, k]) == int(scores.argmax())


def test_labels_do_not_depend_on_batch_padding_or_restart(bestrq, feats):
    labels = bestrq.labels(feats, LENS)
    for i, n in enumerate(LENS.tolist()):
        alone = bestrq.labels(feats[i : i + 1, :n], LENS[i : i + 1])[0]
        assert torch.equal(labels[i, : len(alone)], alone)
    noisy = feats.clone()
    noisy[1, 40:] = 1e3  # what lies in the padding
    padded = torch.nn.functional.pad(noisy, (0, 0, 0, 13), value=-7.0)
    assert torch.equal(bestrq.labels(padded, LENS)[:, :16], labels)
    torch.manual_seed(123)
    again = BestRQ(F, D, codebook_size=V, codebook_dim=4)
    assert torch.equal(again.labels(feats, LENS), labels)


def test_labels_do_not_depend_on_the_mask(bestrq, feats, encoder, monkeypatch):
    # The labels that the loss uses are those of the clean features, whatever the seeds mask.
    seen = []
    monkeypatch.setattr(bestrq.quantizer, "forward", lambda x: seen.append(x) or torch.zeros(x.shape[:-1]).long())
    for seeds in (SEEDS, SEEDS + 100):
        bestrq(feats, LENS, seeds, encoder)
    assert torch.equal(seen[0], seen[1])


def test_the_encoder_sees_noise_at_masked_frames_and_nothing_else_changed(bestrq, feats, encoder):
    seen = []
    bestrq(feats, LENS, SEEDS, lambda x, n: seen.append(x) or encoder(x, n))
    mask = bestrq.mask(SEEDS, LENS, 61).repeat_interleave(4, dim=1)[:, :61]
    assert len(seen) == 1
    assert mask.any()
    assert torch.equal(seen[0][~mask], feats[~mask])
    assert (seen[0][mask] != feats[mask]).all()


def test_the_share_of_masked_frames_is_that_of_spans_on_frames():
    bestrq = BestRQ(F, D, codebook_size=V, p_mask=0.02, mask_span_frames=20)
    lens = torch.full((500,), 800)
    shares = bestrq.mask(torch.arange(500), lens, 800)[:, 5:].double().mean(1)
    expected = 1 - (1 - 0.02) ** 20
    assert abs(float(shares.mean()) - expected) < 4 * float(shares.std()) / math.sqrt(500)


def hand_loss(bestrq, feats, states, state_lens):
    """Definition: mean over masked states of -log softmax(W h)[y]."""
    mask, labels = bestrq.mask(SEEDS, LENS, feats.size(1)), bestrq.labels(feats, LENS)
    terms = []
    for i in range(len(feats)):
        for t in range(int(state_lens[i])):
            if mask[i, t]:
                scores = bestrq.head.weight @ states[i, t] + bestrq.head.bias
                terms.append(scores.exp().sum().log() - scores[labels[i, t]])
    return torch.stack(terms).mean(), len(terms)


def test_loss_equals_its_definition(bestrq, feats, encoder):
    kept = []
    output = bestrq(feats, LENS, SEEDS, lambda x, n: kept.append(encoder(x, n)) or kept[0])
    expected, n = hand_loss(bestrq, feats, *kept[0])
    assert n >= 5
    torch.testing.assert_close(output.loss, expected)
    assert int(output.weight) == n
    assert float(output.stats["ssl_masked"]) == pytest.approx(n / int((LENS // 4).sum()))


def test_only_masked_states_matter(bestrq, feats, encoder):
    mask = bestrq.mask(SEEDS, LENS, 61)[:, :15]

    def perturbed(where):
        def encode(x, n):
            states, lens = encoder(x, n)
            return states + 10 * torch.randn_like(states) * where.unsqueeze(-1), lens

        return bestrq(feats, LENS, SEEDS, encode).loss

    plain = bestrq(feats, LENS, SEEDS, encoder).loss
    assert torch.equal(perturbed(~mask), plain)
    assert not torch.isclose(perturbed(mask), plain)


def test_loss_does_not_depend_on_order_or_padding(bestrq, feats, encoder):
    plain = bestrq(feats, LENS, SEEDS, encoder)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(bestrq(feats[order], LENS[order], SEEDS[order], encoder).loss, plain.loss)
    padded = torch.nn.functional.pad(feats, (0, 0, 0, 9), value=3.0)
    torch.testing.assert_close(bestrq(padded, LENS, SEEDS, encoder).loss, plain.loss)
    # Batches merge by their weights.
    parts = [bestrq(feats[i : i + 1, :n], LENS[i : i + 1], SEEDS[i : i + 1], encoder) for i, n in enumerate(LENS)]
    merged = sum(p.loss * p.weight for p in parts) / sum(p.weight for p in parts)
    torch.testing.assert_close(merged, plain.loss)


def test_gradient_matches_finite_differences(bestrq, feats, encoder):
    names = [("encoder", n) for n, _ in encoder.named_parameters()] + [("head", n) for n in ("weight", "bias")]

    def loss(*values):
        table = dict(zip(names, values, strict=True))
        encode = lambda x, n: torch.func.functional_call(  # noqa: E731
            encoder, {k: v for (m, k), v in table.items() if m == "encoder"}, (x, n)
        )
        heads = {f"head.{k}": v for (m, k), v in table.items() if m == "head"}
        return torch.func.functional_call(bestrq, heads, (feats, LENS, SEEDS, encode)).loss

    values = [p.detach().clone().requires_grad_() for m in (encoder, bestrq.head) for p in m.parameters()]
    assert torch.autograd.gradcheck(loss, values)


def test_a_batch_without_masked_frames_gives_a_zero_loss_that_has_a_gradient(feats, encoder):
    bestrq = BestRQ(F, D, codebook_size=V, p_mask=0.0).double()
    output = bestrq(feats, LENS, SEEDS, encoder)
    output.loss.backward()
    assert output.loss.item() == 0
    assert not bestrq.head.weight.grad.any()
    assert int(output.weight) == 0


def test_a_span_must_fit_the_stack():
    with pytest.raises(ValueError, match="mask_span_frames 10: expected a multiple of stack 4"):
        BestRQ(F, D, mask_span_frames=10)
