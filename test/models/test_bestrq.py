import pytest
import torch

from bilevel.models.bestrq import Objective as BestRQ
from bilevel.models.masked_prediction import perplexity

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
    seen, forward = [], bestrq.quantizer.forward
    monkeypatch.setattr(bestrq.quantizer, "forward", lambda x: seen.append(forward(x)) or seen[-1])
    expected = bestrq.labels(feats, LENS)[:, :15]
    for seeds in (SEEDS, SEEDS + 100):
        bestrq(feats, LENS, seeds, encoder)
        mask = bestrq.masking.masks(seeds, LENS, 61)[1][:, :15] & (torch.arange(15) < (LENS // 4).unsqueeze(1))
        assert len(seen[-1]) > 5
        assert torch.equal(seen[-1], expected[mask])


def test_the_encoder_sees_noise_at_masked_frames_and_nothing_else_changed(bestrq, feats, encoder):
    seen = []
    bestrq(feats, LENS, SEEDS, lambda x, n: seen.append(x) or encoder(x, n))
    mask = bestrq.masking.masks(SEEDS, LENS, 61)[0]
    assert len(seen) == 1
    assert mask.any()
    assert torch.equal(seen[0][~mask], feats[~mask])
    assert (seen[0][mask] != feats[mask]).all()


def hand_loss(bestrq, feats, states, state_lens):
    """Definition: mean over masked states of -log softmax(W h)[y]."""
    mask, labels = bestrq.masking.masks(SEEDS, LENS, feats.size(1))[1], bestrq.labels(feats, LENS)
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
    mask = bestrq.masking.masks(SEEDS, LENS, 61)[1][:, :15]

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
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


def test_a_batch_without_masked_frames_gives_a_zero_loss_that_has_a_gradient(feats, encoder):
    bestrq = BestRQ(F, D, codebook_size=V, p_mask=0.0).double()
    output = bestrq(feats, LENS, SEEDS, encoder)
    output.loss.backward()
    assert output.loss.item() == 0
    assert not bestrq.head.weight.grad.any()
    assert int(output.weight) == 0


def test_several_codebooks_are_the_mean_of_their_losses(feats, encoder):
    torch.manual_seed(0)
    several = BestRQ(F, D, codebook_size=V, codebook_dim=4, n_codebooks=3, p_mask=0.05, mask_span_frames=8).double()
    assert several.labels(feats, LENS).shape == (3, 16, 3)
    losses, hits = [], []
    for c in range(3):
        one = BestRQ(F, D, codebook_size=V, codebook_dim=4, p_mask=0.05, mask_span_frames=8).double()
        one.quantizer.projection.copy_(several.quantizer.projection[:, 4 * c : 4 * c + 4])
        one.quantizer.codebook.copy_(several.quantizer.codebook[V * c : V * c + V])
        one.head.weight.data.copy_(several.head.weight[V * c : V * c + V])
        one.head.bias.data.copy_(several.head.bias[V * c : V * c + V])
        output = one(feats, LENS, SEEDS, encoder)
        losses.append(output.loss)
        hits.append(output.stats["ssl_acc"])
    output = several(feats, LENS, SEEDS, encoder)
    torch.testing.assert_close(output.loss, sum(losses) / 3)
    torch.testing.assert_close(output.stats["ssl_acc"], sum(hits) / 3)
    assert int(output.weight) == int(one(feats, LENS, SEEDS, encoder).weight)


def test_perplexity_is_that_of_the_labels_used():
    def of(labels, weights=None):
        labels = torch.tensor(labels)
        return float(perplexity(labels, 5, torch.ones(len(labels)) if weights is None else torch.tensor(weights)))

    assert of([2, 2, 2]) == pytest.approx(1)
    assert of([0, 1, 2, 3, 4]) == pytest.approx(5)
    assert of([0, 0, 0, 1]) == pytest.approx(4 / 3**0.75)
    assert of([[0, 0], [0, 1]]) == pytest.approx((1 + 2) / 2)
    assert of([4, 0, 0, 0, 1, 2], [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]) == pytest.approx(4 / 3**0.75)


def test_health_shows_a_collapse(bestrq, feats, encoder):
    healthy = bestrq(feats, LENS, SEEDS, encoder).stats
    assert float(healthy["ssl_label_perplexity"]) > 3
    assert float(healthy["ssl_feature_std"]) > 0.1
    encoder.linear.weight.data.zero_()
    bestrq.quantizer.codebook[:] = bestrq.quantizer.codebook[0].clone()
    collapsed = bestrq(feats, LENS, SEEDS, encoder).stats
    assert float(collapsed["ssl_label_perplexity"]) == pytest.approx(1)
    assert float(collapsed["ssl_feature_std"]) == pytest.approx(0, abs=1e-9)
