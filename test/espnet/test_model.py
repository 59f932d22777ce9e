import pytest
import torch

IDS = ["train-1", "train-3"]


@pytest.fixture(params=["bestrq", "infonce"])
def model(kit, request):
    conf = {"ssl": request.param} if request.param == "bestrq" else {"ssl": "infonce", "ssl_conf": {}}
    return kit.model(model_conf=conf).eval()


@pytest.fixture
def one(kit):
    return kit.model().eval()


@torch.no_grad()
def test_encoder_states_do_not_depend_on_padding(model, corpus):
    batch = corpus.upper(IDS)
    assert len(set(batch["speech_lengths"].tolist())) == 2
    # What lies in the padding must not matter, nor how much of it there is.
    noisy = torch.nn.functional.pad(batch["speech"], (0, 3000))
    for row, n in zip(noisy, batch["speech_lengths"], strict=True):
        row[n:] = 0.5 * torch.randn(len(row) - n)
    for speech in (batch["speech"], noisy):
        states, lens = model.encode(speech, batch["speech_lengths"])
        for i, key in enumerate(IDS):
            alone, n = model.encode(*(corpus.upper([key])[k] for k in ("speech", "speech_lengths")))
            assert int(lens[i]) == int(n[0]) == alone.size(1)
            torch.testing.assert_close(states[i, : int(n[0])], alone[0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("level", ["upper", "lower"])
def test_losses_do_not_depend_on_padding_or_batch_mates(one, corpus, level):
    make = corpus.upper if level == "upper" else corpus.lower
    loss, stats, weight = one(level=level, **make(IDS))
    alone = [one(level=level, **make([key])) for key in IDS]
    merged = sum(part * w for part, _, w in alone) / sum(w for *_, w in alone)
    torch.testing.assert_close(loss, merged, rtol=0, atol=1e-5)
    assert int(weight) == sum(int(w) for *_, w in alone)
    assert int(weight) > 5
    longer = make(IDS)
    longer["speech"] = torch.nn.functional.pad(longer["speech"], (0, 4321))
    torch.testing.assert_close(one(level=level, **longer)[0], loss, rtol=0, atol=1e-5)
    name = "loss" if level == "upper" else "ssl_loss"
    torch.testing.assert_close(stats[name], loss.detach())


@torch.no_grad()
def test_infonce_does_not_depend_on_padding(kit, corpus):
    model = kit.model(model_conf={"ssl": "infonce", "ssl_conf": {}}).eval()
    batch = corpus.lower(IDS)
    loss, _, weight = model(level="lower", **batch)
    batch["speech"] = torch.nn.functional.pad(batch["speech"], (0, 4321))
    longer, _, same_weight = model(level="lower", **batch)
    torch.testing.assert_close(longer, loss, rtol=0, atol=1e-5)
    assert int(weight) == int(same_weight) > 5


@torch.no_grad()
def test_utterances_too_short_for_infonce_do_not_stop_the_training(kit, corpus):
    model = kit.model(model_conf={"ssl": "infonce", "ssl_conf": {}})
    batch = corpus.lower(IDS) | {"speech": torch.randn(2, 2400), "speech_lengths": torch.tensor([2400, 1600])}
    loss, stats, weight = model(level="lower", **batch)
    assert loss.item() == 0
    assert int(weight) == 0
    assert set(stats) == set(model(level="lower", **corpus.lower(IDS))[1])


@torch.no_grad()
def test_the_upper_loss_is_per_token(kit, corpus):
    batch = corpus.upper(IDS)
    per_token, stats, n_tokens = kit.model().eval()(**batch)
    per_utterance, _, n_utterances = kit.model(model_conf={"loss_per_token": False}).eval()(**batch)
    assert int(n_tokens) == sum(len(corpus.text[key]) for key in IDS)
    assert int(n_utterances) == 2
    torch.testing.assert_close(per_token * n_tokens, per_utterance * n_utterances)
    torch.testing.assert_close(stats["loss_ctc"], per_token)


def test_parameters_divide_into_backbone_and_heads(model):
    names = {id(p): name for name, p in model.named_parameters()}
    upper, lower = ({names[id(p)] for p in params} for params in (model.upper_params(), model.lower_params()))
    assert upper | lower == set(names.values())
    assert {n.split(".")[0] for n in upper - lower} == {"ctc"}
    assert {n.split(".")[0] for n in lower - upper} == {"ssl"}
    assert {n.split(".")[0] for n in upper & lower} == {"encoder"}


def test_parameters_are_named_for_what_they_hear_of(model, corpus):
    params = dict(model.named_parameters())
    for level, batch, own in (
        ("upper", corpus.upper(IDS), model.upper_params()),
        ("lower", corpus.lower(IDS), model.lower_params()),
    ):
        grads = torch.autograd.grad(model(level=level, **batch)[0].sum(), list(params.values()), allow_unused=True)
        reached = {name for name, g in zip(params, grads, strict=True) if g is not None}
        assert reached == {name for name, p in params.items() if any(p is q for q in own)}


def test_no_batch_statistics(model):
    assert not [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("first", ["<unk>", "a"])
def test_unit_zero_must_be_blank(kit, corpus, tmp_path, first):
    tokens = corpus.token_list.read_text().split()
    tokens.remove(first)
    (tmp_path / "tokens.txt").write_text("\n".join([first, *tokens]) + "\n")
    with pytest.raises(ValueError, match=f"token list starts with '{first}': unit 0 must be <blank>"):
        kit.model(token_list=str(tmp_path / "tokens.txt"))


def test_an_unknown_objective_is_refused(kit):
    with pytest.raises(ValueError, match="'cpc'; the nearest one is 'infonce', all: bestrq, birq, hubert, infonce"):
        kit.model(model_conf={"ssl": "cpc"})


def test_features_of_the_lower_level_keep_full_precision_under_autocast(kit, corpus):
    model, seen = kit.model().eval(), []
    model.ssl.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = corpus.lower(["unlab-1", "unlab-2"])
    model(level="lower", **batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(level="lower", **batch)
    assert torch.equal(*seen)
