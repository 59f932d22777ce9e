import torch

from bilevel.optim import rng


def draws(n=3):
    return torch.rand(n)


def test_replayed_passes_draw_the_same_and_the_last_one_moves_on():
    torch.manual_seed(0)
    expected = [draws(), draws()]
    torch.manual_seed(0)
    for _ in range(3):
        with rng.replay([torch.zeros(1)]):
            assert torch.equal(draws(), expected[0])
    assert torch.equal(draws(), expected[0])
    assert torch.equal(draws(), expected[1])


def test_replay_can_be_switched_off():
    with rng.replay([], enabled=False):
        first = draws()
    assert not torch.equal(draws(), first)


def test_seeded_numbers_depend_on_the_seed_alone_and_leave_the_generator_as_it_was():
    before = torch.get_rng_state()
    found = []
    for seed in (1, 2, 1):
        with rng.seeded(seed, [torch.zeros(1)]):
            found.append(draws())
        assert torch.equal(torch.get_rng_state(), before)
        draws()
        torch.set_rng_state(before)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_generators_are_put_back_after_an_error():
    before = torch.get_rng_state()
    for context in (rng.replay([]), rng.seeded(0, [])):
        try:
            with context:
                draws()
                raise KeyError
        except KeyError:
            assert torch.equal(torch.get_rng_state(), before)
