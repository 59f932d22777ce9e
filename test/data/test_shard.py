"""Members of tar shards: one pass, one member in memory, and nothing that a hostile shard could do."""

import gzip
import io
import random
import tarfile
import tracemalloc

import pytest

from bilevel.data.shard import entry, file_of, members, split
from bilevel.testing.yodas_tree import write_shard

CONTENT = {f"clip-{n}.wav": bytes([n]) * (1000 + n) for n in range(5)}


def test_entries_are_told_from_paths():
    assert entry("a b/00.tar.gz", "x-1") == "a b/00.tar.gz::x-1"
    assert split("/d/00.tar.gz::-x-1") == ("/d/00.tar.gz", "-x-1")
    assert split("/d/a.tar::b.tar::c") == ("/d/a.tar::b.tar", "c")
    for path in ("/d/00.tar.gz", "/d/x.wav", "C::x.wav", "/d/00.tar.gz::a/b", "cat x.tar::y |extra/"):
        assert split(path) is None
        assert file_of(path) == path
    assert file_of("/d/00.tar.gz::x") == "/d/00.tar.gz"


@pytest.mark.parametrize("packed", [True, False])
def test_members_come_in_order_and_only_the_wanted_ones_are_read(tmp_path, packed):
    path = tmp_path / "s.tar.gz"
    write_shard(path, CONTENT, folder="deep/er")
    if not packed:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    found = list(members(path, {"clip-3", "clip-1"}))
    assert [key for key, _ in found] == [f"clip-{n}" for n in range(5)]
    assert {key: data for key, data in found if data is not None} == {
        f"clip-{n}": CONTENT[f"clip-{n}.wav"] for n in (1, 3)
    }


def test_memory_is_that_of_one_member(tmp_path):
    peaks = []
    for n_members in (3, 60):
        names = [f"{n}.wav" for n in range(n_members)]
        write_shard(tmp_path / "s.tar.gz", dict.fromkeys(names, bytes(1 << 20)))
        wanted = {str(n) for n in range(n_members)}
        tracemalloc.start()
        for _, content in members(tmp_path / "s.tar.gz", wanted):
            assert len(content) == 1 << 20
            del content
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (64 << 10)
    assert peaks[1] < 8 << 20


@pytest.mark.parametrize(("n_left", "n_found"), [(0, 0), (6000, 1), (14_000, 3), (-4, 5)])
def test_a_truncated_shard_gives_what_it_has_and_says_so(tmp_path, n_left, n_found):
    """Members of 4,000 bytes that do not compress; without the last 4 bytes they are all there, unverified."""
    path, rng = tmp_path / "s.tar.gz", random.Random(0)
    files = {name: rng.randbytes(4000) for name in CONTENT}
    write_shard(path, files)
    path.write_bytes(path.read_bytes()[:n_left])
    found = {}
    with pytest.raises(ValueError, match="damaged or truncated shard"):  # noqa: PT012
        for key, content in members(path, {name[:-4] for name in files}):
            found[f"{key}.wav"] = content
    assert found == {name: files[name] for name in list(files)[: len(found)]}
    assert len(found) == n_found


def test_a_flipped_bit_and_a_missing_shard(tmp_path):
    path = tmp_path / "s.tar.gz"
    write_shard(path, {"a.wav": random.Random(0).randbytes(100_000)})
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1  # stored as it is, being noise: only the checksum tells
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged or truncated shard: .*CRC"):
        list(members(path, {"a"}))
    path.write_text("<html>")
    with pytest.raises(ValueError, match="damaged or truncated shard"):
        list(members(path, {"a"}))
    with pytest.raises(ValueError, match="no such file"):
        list(members(tmp_path / "none.tar.gz", {"a"}))


def test_hostile_members(tmp_path):
    """Names lead nowhere, links and devices are passed over, and a size that cannot be is refused before it is read."""
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, link in (
            ("../../a.wav", tarfile.REGTYPE, ""),
            ("/etc/b.wav", tarfile.REGTYPE, ""),
            ("c.wav", tarfile.SYMTYPE, "/etc/passwd"),
            ("d.wav", tarfile.LNKTYPE, "../../a.wav"),
            ("e.wav", tarfile.CHRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 3 * (kind == tarfile.REGTYPE)
            tar.addfile(member, io.BytesIO(b"abc"))
    assert list(members(path, set("abcde"))) == [("a", b"abc"), ("b", b"abc")]
    member = tarfile.TarInfo("huge.wav")
    member.size = 1 << 40
    path.write_bytes(member.tobuf() + bytes(10_000))
    with pytest.raises(ValueError, match=r"'huge\.wav' has 1099511627776 bytes, at most"):
        list(members(path, {"huge"}))
