"""Downloads from a local server, and archives that mean harm (fault 34)."""

import functools
import hashlib
import http.server
import io
import subprocess
import tarfile
import threading
import zipfile

import pytest

from bilevel.data.fetch import checkout, extract, fetch, fetch_archive, verify

CONTENT = bytes(range(256)) * 40
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; knows Range unless told not to; may break off."""

    def __init__(self, log, ranges, cut, *args):
        self.log, self.ranges, self.cut = log, ranges, cut
        super().__init__(*args)

    def do_GET(self):
        self.log.append(self.headers.get("Range"))
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(self.headers["Range"][6:-1]) if self.ranges and self.headers.get("Range") else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.cut.pop() if self.cut else None])

    def log_message(self, *args):
        """Nothing on stderr."""


@pytest.fixture
def serve():
    servers = []

    def start(ranges=True, cut=()):
        log = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, log, ranges, list(cut)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/file", log

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_download_once(serve, tmp_path, checksum):
    url, log = serve()
    for _ in range(2):
        assert fetch(url, tmp_path / "new" / "a", checksum).read_bytes() == CONTENT
    assert log == [None]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a"]


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_continues(serve, tmp_path, ranges):
    """With Range the rest is fetched; a server without it sends all again, and nothing is doubled."""
    url, log = serve(ranges=ranges, cut=[5000])
    with pytest.raises(OSError, match=r"connection broke .* call again"):
        fetch(url, tmp_path / "a", SHA256)
    assert (tmp_path / "a.part").stat().st_size == 5000
    assert not (tmp_path / "a").exists()
    assert fetch(url, tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert log == [None, "bytes=5000-"]


def test_complete_part_is_not_fetched_again(serve, tmp_path):
    url, _ = serve()
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(url, tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(serve, tmp_path):
    url, _ = serve()
    with pytest.raises(ValueError, match=r"sha256 is .* expected 00ff; nothing was unpacked"):
        fetch(url, tmp_path / "a", "sha256:00ff")
    assert list(tmp_path.iterdir()) == []


def test_wrong_file_in_place_is_refused_and_kept(serve, tmp_path):
    url, log = serve()
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(ValueError, match="delete it, try again"):
        fetch(url, tmp_path / "a", SHA256)
    assert log == []
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_unknown_address_and_unknown_checksum(serve, tmp_path):
    url, _ = serve()
    with pytest.raises(OSError, match="404"):
        fetch(url + "s", tmp_path / "a", SHA256)
    with pytest.raises(OSError, match="give --src"):
        fetch("http://127.0.0.1:9/none", tmp_path / "a", SHA256)
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ValueError, match="expected sha256:<hex> or md5:<hex>"):
        verify(tmp_path / "b", "crc:1")


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, change in members:
            info = tarfile.TarInfo(name)
            content = change.pop("content", b"data")
            info.size = len(content)
            for key, value in change.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def test_archive_is_fetched_and_unpacked_once(tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "y.txt"}
    archive = make_tar(tmp_path / "a.tar.gz", [("x/y.txt", {}), ("x/link", link)])
    arguments = (archive.as_uri(), tmp_path / "out", f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}")
    fetch_archive(*arguments)
    assert (tmp_path / "out" / "x" / "link").read_bytes() == b"data"
    archive.unlink()
    (tmp_path / "out" / "a.tar.gz").unlink()
    fetch_archive(*arguments)
    with pytest.raises(OSError, match=r"a\.tar\.gz"):
        fetch_archive(*arguments[:2], "sha256:00")


def test_archive_with_the_wrong_checksum_is_not_unpacked(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [("x", {})])
    with pytest.raises(ValueError, match="nothing was unpacked"):
        fetch_archive(archive.as_uri(), tmp_path / "out", "sha256:00")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "bad",
    [
        ("../evil", {}),
        ("x/../../evil", {}),
        ("/evil", {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "../outside"}),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("device", {"type": tarfile.CHRTYPE}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
        ("bomb", {"content": bytes(17 << 20)}),
    ],
)
def test_bad_tar_writes_nothing(tmp_path, bad):
    name, change = bad
    archive = make_tar(tmp_path / "a.tar.gz", [("good", {}), (name, dict(change))])
    with pytest.raises(ValueError, match=r"a\.tar\.gz: refused"):
        extract(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "out"]


@pytest.mark.parametrize("bad", ["../evil", "/evil", "link", "bomb"])
def test_bad_zip_writes_nothing(tmp_path, bad):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("good", "data")
        member = zipfile.ZipInfo(bad)
        if bad == "link":
            member.external_attr = 0o120777 << 16
        member.compress_type = zipfile.ZIP_DEFLATED
        bundle.writestr(member, bytes(17 << 20) if bad == "bomb" else b"../outside")
    with pytest.raises(ValueError, match=r"a\.zip: refused"):
        extract(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_good_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("x/y.txt", "data")
    extract(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "x" / "y.txt").read_text() == "data"


@pytest.mark.parametrize("cut", [10, -30])
def test_damaged_archive(tmp_path, cut):
    archive = make_tar(tmp_path / "a.tar.gz", [("x", {"content": b"ab" * 50})])
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.tar\.gz: refused"):
        extract(archive, tmp_path / "out")


def test_flipped_byte_in_an_archive(tmp_path):
    archive = make_tar(tmp_path / "a.tar.gz", [("x", {"content": bytes(range(256)) * 50})])
    content = bytearray(archive.read_bytes())
    content[40] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar\.gz: refused"):
        extract(archive, tmp_path / "out")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "upstream"
    folder.mkdir()

    def git(*arguments):
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *names, *arguments], cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--quiet")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    (folder / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "one")
    first = git("rev-parse", "HEAD").strip()
    (folder / "file").write_text("two")
    git("commit", "--quiet", "-am", "two")
    return folder, first


def test_checkout_pins_a_commit(repository, tmp_path):
    upstream, first = repository
    for _ in range(2):
        assert (checkout(f"file://{upstream}", first, tmp_path / "deep" / "copy") / "file").read_text() == "one"
    with pytest.raises(ValueError, match="git fetch"):
        checkout(f"file://{upstream}", "0" * 40, tmp_path / "deep" / "other")
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["copy"]
