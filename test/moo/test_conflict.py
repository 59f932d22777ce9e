import json
import logging

import pytest
import torch

from bilevel.moo.conflict import ConflictMonitor

NAMES = ["layers.0.weight", "layers.0.bias", "layers.1.weight"]


def products(seed):
    rows = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows @ rows.transpose(1, 2), rows


def test_a_record_is_the_mean_of_its_steps_in_each_layer(tmp_path, caplog):
    monitor = ConflictMonitor(["asr", "st", "ssl"], NAMES, every=2)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    with caplog.at_level(logging.INFO):
        for seed in range(2):
            gramians, rows = products(seed)
            monitor.observe(gramians)
            blocks = [torch.cat([rows[0], rows[1]], 1), rows[2]]
            for i, block in enumerate(blocks):
                for k, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
                    expected[i, k] += torch.cosine_similarity(block[a], block[b], dim=0) / 2
    monitor.write(tmp_path / "conflicts.json")
    found = json.loads((tmp_path / "conflicts.json").read_text())
    assert found["pairs"] == [["asr", "st"], ["asr", "ssl"], ["st", "ssl"]]
    assert found["layers"] == ["layers.0", "layers.1"]
    assert [record["step"] for record in found["records"]] == [2]
    torch.testing.assert_close(torch.tensor(found["records"][0]["cosine"]).double(), expected, atol=6e-5, rtol=0)
    worst = int(expected.argmin())
    assert f"in layers.{worst // 3}" in caplog.text
    assert f"mean cosine {float(expected.mean()):.3f}" in caplog.text


def test_what_was_not_found_is_null_and_does_not_count():
    monitor = ConflictMonitor(["a", "b", "c"], NAMES, every=2)
    gramians, _ = products(0)
    monitor.observe(gramians)
    absent = gramians.clone()
    absent[:, 2], absent[:, :, 2] = 0, 0
    absent[:2] = 0
    monitor.observe(absent, found=[2])  # an objective without data, and a block of which no gradient was found
    both = ConflictMonitor(["a", "b", "c"], NAMES, every=1)
    both.observe(gramians)
    first = both.records[0]["cosine"]
    assert monitor.records[0]["cosine"] == [first[0], first[1]]
    never = ConflictMonitor(["a", "b", "c"], NAMES, every=1)
    never.observe(absent, found=[2])
    assert never.records[0]["cosine"][0] == [None, None, None]
    assert never.records[0]["cosine"][1][1:] == [None, None]


def test_two_batches_tell_signal_from_noise():
    """Gradients mu + noise with known mu: its share of the squared length comes out, and with it the cosine of mu."""
    n_steps, dim, noise = 4000, 50, 1.0
    generator = torch.Generator().manual_seed(0)
    mu = torch.zeros(3, dim, dtype=torch.float64)
    mu[0, 0], mu[1, 0], mu[1, 1], mu[2, 2] = 2, -1.2, 1.6, 1  # cosine -0.6 of the first two; the third across both
    monitor = ConflictMonitor(["a", "b", "c"], NAMES, every=n_steps)
    for step in range(n_steps):
        g = mu + noise * torch.randn(2, 3, 3, dim, generator=generator, dtype=torch.float64)  # batch, tensor, objective
        if step % 2:
            g[:, :, 1] = 0  # absent: such steps must not count
        mean = g.mean(0)
        monitor.observe(mean @ mean.transpose(1, 2), shared=(g[0] * g[1]).sum(-1))
    (record,) = monitor.records
    for cosines, share in zip(record["cosine"], record["signal_share"], strict=True):
        assert share == pytest.approx([length / (length + noise**2 * dim / 2) for length in (4, 4, 1)], abs=0.01)
        assert -0.1 < cosines[0] < 0, "the plain mean hides the conflict"
        lengths = [(share[a] * share[b]) ** 0.5 for a, b in ((0, 1), (0, 2), (1, 2))]
        assert [c / n for c, n in zip(cosines, lengths, strict=True)] == pytest.approx([-0.6, 0, 0], abs=0.06)


def test_one_batch_has_no_share():
    rows = products(0)[1]
    twice = rows.clone()
    twice[:, 2] = 0  # the third objective has one batch
    monitor = ConflictMonitor(["a", "b", "c"], NAMES, every=1)
    monitor.observe(rows @ rows.transpose(1, 2), shared=twice.square().sum(-1))
    assert [[v is None for v in row] for row in monitor.records[0]["signal_share"]] == [[False, False, True]] * 2
    monitor.observe(rows @ rows.transpose(1, 2))
    assert monitor.records[1].keys() == {"step", "cosine"}


def test_a_resumed_monitor_goes_on():
    straight, resumed = (ConflictMonitor(["a", "b", "c"], NAMES, every=2) for _ in range(2))
    for seed in range(3):
        straight.observe(products(seed)[0], shared=products(seed)[0].diagonal(dim1=1, dim2=2))
    resumed.load_state_dict(straight.state_dict())
    for monitor in (straight, resumed):
        monitor.observe(products(3)[0], shared=products(3)[0].diagonal(dim1=1, dim2=2))
    assert resumed.records == straight.records
    assert len(resumed.records) == 2
    assert "signal_share" in resumed.records[1]
    with pytest.raises(ValueError, match="found keys"):
        resumed.load_state_dict({})
    with pytest.raises(ValueError, match="every 0"):
        ConflictMonitor(["a"], NAMES, every=0)
