"""Both back ends write the same bytes and read the same arrays; neither ever runs a command."""

import kaldiio
import numpy as np
import pytest
from omniio import kaldi as omniio_kaldi

from bilevel.data import archive

BACKENDS = {"kaldiio": kaldiio, "omniio": omniio_kaldi}


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    monkeypatch.setattr(archive, "backend", BACKENDS[request.param])
    return request.param


def items():
    rng = np.random.default_rng(3)
    return [(f"utt-{n}-é", rng.standard_normal((n + 1, 5)).astype(np.float32)) for n in range(4)]


def save(folder):
    table = archive.write_archive(folder / "feats.ark", items())
    (folder / "feats.scp").write_text("".join(f"{k} {v}\n" for k, v in table.items()))
    return table


def test_round_trip_and_independent_reader(backend, tmp_path):
    save(tmp_path)
    for found in (
        dict(archive.read_archive(tmp_path / "feats.scp")),
        dict(kaldiio.load_scp(str(tmp_path / "feats.scp"))),
        dict(omniio_kaldi.load_scp(str(tmp_path / "feats.scp"))),
        dict(kaldiio.load_ark(str(tmp_path / "feats.ark"))),
    ):
        assert list(found) == [key for key, _ in items()]
        assert all(np.array_equal(found[key], matrix) for key, matrix in items())


def test_bytes_do_not_depend_on_the_back_end(tmp_path, monkeypatch):
    written = []
    for module in BACKENDS.values():
        monkeypatch.setattr(archive, "backend", module)
        table = save(tmp_path)
        written.append(((tmp_path / "feats.ark").read_bytes(), table))
    assert written[0] == written[1]


def test_the_final_place_is_in_the_table(backend, tmp_path):
    table = archive.write_archive(tmp_path / "a.ark", items(), final=tmp_path / "b" / "c.ark")
    assert next(iter(table.values())) == f"{tmp_path}/b/c.ark:{len('utt-0-é'.encode()) + 1}"


@pytest.mark.parametrize("entry", ["touch PWNED |", "| touch PWNED", "cat x; touch PWNED|", "-", ""])
def test_commands_are_never_run(backend, tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="commands are never run"):
        archive.read_matrix(entry)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_reported_by_entry(backend, tmp_path):
    entry = list(save(tmp_path).values())[-1]
    data = (tmp_path / "feats.ark").read_bytes()
    (tmp_path / "feats.ark").write_bytes(data[:-10])
    with pytest.raises(ValueError, match=r"feats\.ark:\d+'.*extract the features again"):
        archive.read_matrix(entry)
    (tmp_path / "feats.ark").write_bytes(b"\0" * len(data))
    with pytest.raises(ValueError, match="extract the features again"):
        archive.read_matrix(entry)
    with pytest.raises(ValueError, match="No such file"):
        archive.read_matrix(str(tmp_path / "none.ark:5"))


def test_keys_must_be_words(backend, tmp_path):
    with pytest.raises(ValueError, match="expected one word"):
        archive.write_archive(tmp_path / "x.ark", [("a b", np.zeros((1, 1)))])
    assert list(tmp_path.iterdir()) == []
