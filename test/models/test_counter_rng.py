import math

import torch

from bilevel.models.counter_rng import normal, uniform

N = 200_000
SIGMAS = 4


def near(value, expected, std):
    return abs(float(value) - expected) < SIGMAS * std / math.sqrt(N)


def correlation(x, y):
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def test_uniform_has_the_moments_of_the_uniform_distribution():
    u = uniform(torch.tensor([3]), N)[0].double()
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert near(u.mean(), 1 / 2, math.sqrt(1 / 12))
    assert near((u - 0.5).square().mean(), 1 / 12, math.sqrt(1 / 80 - 1 / 144))
    # Chi-square over 64 cells: mean 63, standard deviation sqrt(126).
    cells = torch.bincount((u * 64).long(), minlength=64).double()
    assert abs(float(((cells - N / 64).square() / (N / 64)).sum()) - 63) < SIGMAS * math.sqrt(126)


def test_normal_has_the_moments_of_the_normal_distribution():
    z = normal(torch.tensor([3]), N)[0].double()
    assert near(z.mean(), 0, 1)
    assert near(z.square().mean(), 1, math.sqrt(2))
    assert near(z.pow(3).mean(), 0, math.sqrt(15))
    assert near(z.pow(4).mean(), 3, math.sqrt(96))
    assert torch.isfinite(z).all()


def test_numbers_of_one_seed_do_not_follow_each_other():
    u = uniform(torch.tensor([9]), N + 1)[0].double()
    assert abs(correlation(u[1:], u[:-1])) < SIGMAS / math.sqrt(N)


def test_neighbouring_seeds_are_independent():
    u = uniform(torch.arange(N + 1), 2).double()
    assert abs(correlation(u[1:, 0], u[:-1, 0])) < SIGMAS / math.sqrt(N)
    assert abs(correlation(u[1:, 0], u[:-1, 1])) < SIGMAS / math.sqrt(N)


def test_streams_of_one_seed_are_independent():
    seeds = torch.tensor([1234567])
    for a, b in ((0, 1), (1, 2), (0, 101), (101, 102)):
        u, v = uniform(seeds, N, a)[0].double(), uniform(seeds, N, b)[0].double()
        assert not torch.equal(u, v)
        assert abs(correlation(u, v)) < SIGMAS / math.sqrt(N)
    z, w = normal(seeds, N, 0)[0].double(), normal(seeds, N, 1)[0].double()
    assert abs(correlation(z, w)) < SIGMAS / math.sqrt(N)


def test_a_row_depends_on_its_seed_and_starts_alike_whatever_its_length():
    seeds = torch.tensor([5, -7, 2**62, 0])
    for draw in (uniform, normal):
        long = draw(seeds, 50)
        assert torch.equal(draw(seeds, 20), long[:, :20])
        for i in range(4):
            assert torch.equal(draw(seeds[i : i + 1], 50)[0], long[i])
        assert len({tuple(row.tolist()) for row in long}) == 4


def test_splitmix64_matches_integer_arithmetic():
    def oracle(seed, k):
        word = 2**64 - 1
        z = (seed * 0x94D049BB133111EB + k * 0x9E3779B97F4A7C15) & word
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        return ((z ^ (z >> 31)) >> 40) / 2**24

    for seed in (0, 1, 987654321, 2**40 + 3):
        assert uniform(torch.tensor([seed]), 8)[0].tolist() == [oracle(seed, k) for k in range(1, 9)]
