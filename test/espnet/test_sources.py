from types import SimpleNamespace

import pytest

from bilevel.data.sources import batch_shares, write_source_shapes
from bilevel.espnet.sources import SourcesIterFactory


def test_temperature_goes_from_hours_to_equal_parts():
    sizes = {"a": 1.0, "b": 4.0, "c": 15.0}
    assert batch_shares(sizes, 1) == pytest.approx({"a": 0.05, "b": 0.2, "c": 0.75})
    assert batch_shares(sizes, 2)["b"] / batch_shares(sizes, 2)["a"] == pytest.approx(2.0)
    assert batch_shares(sizes, 1e9) == pytest.approx(dict.fromkeys("abc", 1 / 3), rel=1e-6)
    for wrong, message in ((0.5, "temperature 0.5"), (1, "without audio: b")):
        with pytest.raises(ValueError, match=message):
            batch_shares(sizes | ({"b": 0} if wrong == 1 else {}), wrong)


class Rows(list):
    """A data set of ESPnet: item by id."""

    def __getitem__(self, key):
        return key, {}


def factory(name, n_batches):
    batches = [[f"{name}{i}"] for i in range(n_batches)]
    return SimpleNamespace(
        sampler=SimpleNamespace(generate=lambda _: batches),
        dataset=Rows(),
        num_workers=0,
        pin_memory=False,
        collate_fn=lambda rows: ([key for key, _ in rows], {}),
    )


def ids_of(sources, epoch):
    return [(ids, batch["lower"]) for ids, batch in sources.build_iter(epoch)]


def test_every_source_is_in_every_step_and_surplus_is_skipped_anew_in_each_pass():
    sources = SourcesIterFactory({"b": factory("b", 12), "a": factory("a", 4)}, None, seed=1)
    assert sources.n_steps == 4  # a pass of the source with the fewest batches
    seen = []
    for epoch in range(1, 7):
        steps = ids_of(sources, epoch)
        assert [[part["source"] for part in parts] for _, parts in steps] == [["a", "b"]] * 4
        assert sorted(ids[0] for ids, _ in steps) == ["a0", "a1", "a2", "a3"]
        seen.append([ids[1] for ids, _ in steps])
        assert len(set(seen[-1])) == 4
    assert len({key for keys in seen for key in keys}) > 8
    assert len({tuple(keys) for keys in seen}) == 6


def test_steps_follow_from_their_number_alone():
    def make(n_steps):
        return SourcesIterFactory({"a": factory("a", 5), "b": factory("b", 7)}, n_steps, seed=1)

    long, short = ids_of(make(6), 1), [step for epoch in (1, 2, 3) for step in ids_of(make(2), epoch)]
    assert [ids for ids, _ in long] == [ids for ids, _ in short]
    seeds = [[part["seeds"].tolist() for part in parts] for _, parts in long]
    assert seeds == [[part["seeds"].tolist() for part in parts] for _, parts in short]


def test_shape_files_are_divided_by_source(tmp_path):
    table = {"u1": "x", "u2": "y", "u3": "x"}
    out = tmp_path / "sources"
    out.mkdir()
    (out / "gone").write_text("u0 1\n")
    assert write_source_shapes(["u1 10", "u2 20", "u3 30"], table, out) == ["x", "y"]
    assert sorted(p.name for p in out.iterdir()) == ["x", "y"]
    assert (out / "x").read_text() == "u1 10\nu3 30\n"
    assert write_source_shapes(["u1 10"], {}, out) == ["all"]
    with pytest.raises(ValueError, match="source 'anchor': the curves use this name"):
        write_source_shapes(["u1 10"], {"u1": "anchor"}, out)
