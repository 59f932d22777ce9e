"""YODAS and YODAS2: their rules, what is missing, the download from a server of ours, and stages 1, 3 and 4."""

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest

from bilevel.bin import data, filter
from bilevel.corpora import MissingSplitError, yodas, yodas2
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.datadir import read_datadir
from bilevel.data.fetch import verify
from bilevel.data.tables import read_scp
from bilevel.data.validate import validate
from bilevel.testing.corpus import check_corpus
from bilevel.testing.yodas_tree import yodas2_tree, yodas_tree

PARTIAL = Options(allow_partial=True)
# Lines of the published files (subsets aa000, bs000, be000, cr000 of YODAS; cr000, bi000 of YODAS2).
PUBLISHED = {
    "8qs0laKWEUo-00000-00000000-00000229 2.30": ("8qs0laKWEUo", 2.30),
    "eE6sN1sYinc-00000-00000056-00000858 8.02": ("eE6sN1sYinc", 8.02),
    "Lyy-cIbMfMM-00001-00004329-00004529 2.00": ("Lyy-cIbMfMM", 2.00),
    "OFW1SK1o_B4-00000-00000000-00000200 2.00": ("OFW1SK1o_B4", 2.00),
}


@pytest.mark.parametrize(("module", "tree"), [(yodas, yodas_tree), (yodas2, yodas2_tree)])
def test_conformance(module, tree, tmp_path):
    check_corpus(module, tree(tmp_path))


def test_published_lines(tmp_path):
    root = yodas_tree(tmp_path, subsets=["aa000"], n_shards=1)
    (root / "data/aa000/duration/00000000.txt").write_text("".join(f"{line}\n" for line in PUBLISHED))
    (root / "data/aa000/text/00000000.txt").write_text("Lyy-cIbMfMM-00001-00004329-00004529 Pemakhark\n")
    rows = {u.id: u for u in yodas.utterances(root, "aa000")}
    assert {key: (u.speaker, u.duration_sec) for key, u in rows.items()} == {
        line.split()[0]: value for line, value in PUBLISHED.items()
    }
    assert [u.text for u in rows.values()] == ["", "", "Pemakhark", ""]
    root = yodas2_tree(tmp_path, subsets=["cr000"], n_shards=1)
    (root / "data/cr000/duration/00000000.txt").write_text("Lyy-cIbMfMM 60.00\nkWkl4Xx6t6o 5.08\n")
    captions = '[{"audio_id": "Lyy-cIbMfMM", "text": {"Lyy-cIbMfMM-00001-00004329-00004529": "Pemakhark"}}, '
    (root / "data/cr000/text/00000000.json").write_text(captions + '{"audio_id": "kWkl4Xx6t6o", "text": {}}]')
    (u,) = yodas2.utterances(root, "cr000")
    assert (u.id, u.recording, u.start_sec, u.end_sec) == (
        "Lyy-cIbMfMM-00001-00004329-00004529", "Lyy-cIbMfMM", 43.29, 45.29
    )  # fmt: skip


def test_rules_of_the_odd_shard(tmp_path):
    root = yodas_tree(tmp_path, odd=True)
    found = {u.id: u for u in yodas.utterances(root, "en000_0") if not u.id.startswith("en000")}
    assert {key: (u.text, u.duration_sec) for key, u in found.items()} == {
        "=-Ab_3cDeF-g-00000-00000000-00000200": ("Odd\tONE two", 0.62),
        "=-Ab_3cDeF-g-00001-00000200-00000250": ("nothing to hear", 0.5),
        "x_-9_uVwXyZ-00007-00000000-00000100": ("quiet", 1.0),
        "x_-9_uVwXyZ-00008-00000100-00000200": ("", 0.62),
        "x_-9_uVwXyZ-00010-00000300-00000500": ("lost", 2.0),
    }
    assert {u.speaker for u in found.values()} == {"=-Ab_3cDeF-g", "x_-9_uVwXyZ"}
    assert all(u.audio.endswith(f"00000000.tar.gz::{key.lstrip('=')}") for key, u in found.items())


def test_captions_of_the_odd_video(tmp_path):
    root = yodas2_tree(tmp_path, odd=True)
    found = [u for u in yodas2.utterances(root, "en000_0") if not u.id.startswith("en000")]
    assert [(u.id, u.text, u.start_sec, u.end_sec) for u in found] == [
        ("=-Ab_3cDeF-g-00000-00000000-00000120", "first line second line", 0.0, 1.2),
        ("=-Ab_3cDeF-g-00001-00000100-00000190", "over lap", 1.0, 1.9),
        ("=-Ab_3cDeF-g-00002-00000190-00000260", "past the end", 1.9, 2.0),
        ("neverLoaded-00000-00000000-00000100", "not in the tar", 0.0, 1.0),
    ]


def test_sets_are_subsets_shards_and_sums(tmp_path):
    root = yodas_tree(tmp_path, n_shards=3)
    (root / "data/en000/audio/notes.tar.gz").write_bytes(b"")

    def shards(split):
        paths = [u.audio.split("::")[0] for u in yodas.utterances(root, split)]
        return [path.removeprefix(f"{root}/data/") for path in paths][::4]

    names = [f"en000/audio/{n:08d}.tar.gz" for n in range(3)]
    assert shards("en000") == names
    assert shards("en000_1") == names[1:2]
    assert shards("en000_1-2") == shards("en000_1-") == names[1:]
    assert shards("en000_2+en000_0") == [names[2], names[0]]
    assert len({u.id for u in yodas.utterances(root, "en000+de100_0")}) == 16
    assert len(list(yodas.utterances(root / "data", "en000"))) == 12  # the folder of subsets will do
    for split in ("en", "en000_", "en0001", "en000_a", "../en000", "en000+"):
        with pytest.raises(MissingSplitError, match="no split"):
            list(yodas.utterances(root, split))
    for split in ("fr000", "en000_3", "en000+fr000"):
        with pytest.raises(MissingSplitError, match=r"found: de100, en000; expected .*/audio/\*\.tar\.gz"):
            list(yodas.utterances(root, split))


def test_incomplete_subsets_are_errors_that_name_the_files(tmp_path):
    root = yodas_tree(tmp_path, n_shards=3)
    prepare("yodas", root, ["en000"], tmp_path / "whole")
    (root / "data/en000/audio/00000001.tar.gz").unlink()
    (root / "data/en000/text/00000000.txt").unlink()
    with pytest.raises(ValueError, match=r"en000: incomplete \(missing: en000: audio of shard 00000001, "
                                         r"en000: text of shard 00000000\); complete .*--allow_partial"):  # fmt: skip
        prepare("yodas", root, ["en000"], tmp_path / "data")
    prepare("yodas", root, ["en000"], tmp_path / "data", options=PARTIAL)
    assert len(read_datadir(tmp_path / "data/en000")) == 8
    assert yodas.missing(root, "en000_2-4") == [f"en000: {kind} of shard 00000003, 00000004"
                                                for kind in ("audio", "text", "duration")]  # fmt: skip
    for path in (root / "data/de100/duration").glob("*.txt"):  # as en108 once was
        path.unlink()
    with pytest.raises(ValueError, match="de100: duration of shard 00000000, 00000001, 00000002"):
        prepare("yodas", root, ["de100"], tmp_path / "data", options=PARTIAL)


def test_published_numbers_of_utterances_and_shards(tmp_path):
    root = yodas_tree(tmp_path, subsets=["bm000"], n_shards=1)
    prepare("yodas", root, ["bm000"], tmp_path / "data")  # four, as published
    assert yodas2.missing(yodas2_tree(tmp_path, subsets=["bi000"]), "bi000") == []
    assert yodas2.missing(yodas2_tree(tmp_path / "x", n_shards=1), "bi000") == [
        f"bi000: {kind} of shard 00000001" for kind in ("audio", "text", "duration")
    ]
    counts = yodas2.published_shards()
    assert {name: counts[name] for name in ("en000", "en006", "en007", "en128", "en129", "bm000", "ru001")} == {
        "en000": 500, "en006": 500, "en007": 437, "en128": 500, "en129": 62, "bm000": 2, "ru001": 287,
    }  # fmt: skip
    assert "en008" not in counts


def test_published_hours_without_a_number_of_utterances(tmp_path, monkeypatch):
    root = yodas_tree(tmp_path)
    hours = sum(u.duration_sec for u in yodas.utterances(root, "en000")) / 3600
    monkeypatch.setattr(yodas, "EXPECTED", {"en000": (None, round(hours, 9))})
    prepare("yodas", root, ["en000"], tmp_path / "data")
    monkeypatch.setattr(yodas, "EXPECTED", {"en000": (None, round(1.02 * hours, 9))})
    with pytest.raises(ValueError, match=r"en000: 0\.00 h, expected 0\.00\d+ h"):
        prepare("yodas", root, ["en000"], tmp_path / "other")


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("duration/00000000.txt", "a-00000-00000000-00000100\n", r"00000000\.txt:1: expected `<id> <seconds>`"),
        ("duration/00000000.txt", "a-00000-00000000-00000100 nan\n", "expected `<id> <seconds>`"),
        ("duration/00000000.txt", "-Ab 1.00\n", "id '-Ab': expected <video>-<number>-<start>-<end>"),
        ("text/00000000.json", "[]", "this is the layout of yodas2; use --corpus yodas2"),
    ],
)
def test_broken_tables_of_yodas(tmp_path, kind, content, message):
    root = yodas_tree(tmp_path, n_shards=1)
    (root / "data/en000" / kind).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(yodas.utterances(root, "en000"))


def test_broken_tables_of_yodas2(tmp_path):
    root = yodas2_tree(tmp_path, n_shards=1)
    text = root / "data/en000/text/00000000.json"
    for content in ('[{"audio_id": "x"', '{"audio_id": "x"}', '[{"audio_id": "x"}]'):
        text.write_text(content)
        with pytest.raises(ValueError, match=r"00000000\.json: expected \[\{\"audio_id\""):
            list(yodas2.utterances(root, "en000"))
    text.rename(text.with_suffix(".txt"))
    with pytest.raises(ValueError, match="this is the layout of yodas; use --corpus yodas"):
        list(yodas2.utterances(root, "en000"))


def test_git_names_of_small_files(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("1DToA84cFVU-00000-00000000-00000200 2.00\n")
    name = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    verify(path, f"git:{name}")
    with pytest.raises(ValueError, match="git is"):
        verify(path, f"git:{'0' * 40}")


class Hub(http.server.SimpleHTTPRequestHandler):
    """The two addresses of the Hub that matter, for a folder; lists are paged."""

    def __init__(self, log, root, *args):
        self.log, self.root = log, root
        super().__init__(*args)

    def do_GET(self):
        self.log.append(self.path)
        listing, resolve = "/api/datasets/espnet/yodas/tree/main/", "/datasets/espnet/yodas/resolve/main/"
        if self.path.startswith(listing):
            folder, _, query = self.path.removeprefix(listing).partition("?")
            self._list(folder, query)
        elif self.path.startswith(resolve):
            self._send((self.root / self.path.removeprefix(resolve)).read_bytes())
        else:
            self.send_error(404)

    def _list(self, folder, query):
        items = [self._item(path) for path in sorted((self.root / folder).rglob("*"))]
        if not items:
            self.send_error(404)
            return
        half = len(items) // 2
        if "cursor" in query:
            self._send(json.dumps(items[half:]).encode())
        else:
            here = f"http://127.0.0.1:{self.server.server_port}{self.path}&cursor=x"
            self._send(json.dumps(items[:half]).encode(), Link=f'<{here}>; rel="next"')

    def _item(self, path):
        name = str(path.relative_to(self.root))
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0"}
        content = path.read_bytes()
        item = {"type": "file", "path": name, "size": len(content)}
        item["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if name.endswith(".gz"):
            item |= {"oid": "0", "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}}
        return item

    def _send(self, content, **headers):
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Nothing on stderr."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    root, log = yodas_tree(tmp_path / "hub"), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, log, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    yield root, log
    server.shutdown()
    server.server_close()


def test_download_of_some_shards_then_of_the_rest(hub, tmp_path, monkeypatch):
    _, log = hub
    monkeypatch.chdir(tmp_path)
    data.main(["--corpus", "yodas", "--sets", "en000_1", "--data_dir", "data"])
    files = [f"/datasets/espnet/yodas/resolve/main/data/en000/{kind}"
             for kind in ("audio/00000001.tar.gz", "duration/00000001.txt", "text/00000001.txt")]  # fmt: skip
    listing = "/api/datasets/espnet/yodas/tree/main/data/en000?recursive=true"
    assert log == [listing, f"{listing}&cursor=x", *files]
    assert len(read_datadir(tmp_path / "data/en000_1")) == 4
    log.clear()
    assert yodas.download(tmp_path / "downloads/yodas", ["en000_1-"]) == tmp_path / "downloads/yodas"
    assert log == []
    # The list of the Hub tells what is missing, at the end too.
    assert yodas.missing(tmp_path / "downloads/yodas", "en000")[0] == "en000: audio of shard 00000000"
    yodas.download(tmp_path / "downloads/yodas", ["en000"])
    assert log == [name.replace("00000001", "00000000") for name in files]
    assert yodas.missing(tmp_path / "downloads/yodas", "en000") == []
    with (tmp_path / "downloads/yodas/data/en000/audio/00000000.tar.gz").open("ab") as stream:
        stream.write(b"x")
    assert yodas.missing(tmp_path / "downloads/yodas", "en000") == [
        "en000: audio of shard 00000000 in its published size"
    ]


def test_download_refuses_other_content_and_unknown_subsets(hub, tmp_path):
    root, _ = hub
    yodas.download(tmp_path / "dl", ["en000_0"])
    for name in ("audio/00000001.tar.gz", "text/00000001.txt"):
        good = (root / "data/en000" / name).read_bytes()
        (root / "data/en000" / name).write_bytes(bytes([good[0] ^ 1]) + good[1:])
        with pytest.raises(ValueError, match=f"{name}.part: (sha256|git) is"):
            yodas.download(tmp_path / "dl", ["en000_1"])
        assert not (tmp_path / "dl/data/en000" / name).exists()
        (root / "data/en000" / name).write_bytes(good)
    with pytest.raises(ValueError, match="espnet/yodas: no subset 'zz000'"):
        yodas.download(tmp_path / "dl", ["zz000"])
    with pytest.raises(MissingSplitError):
        yodas.download(tmp_path / "dl", ["train"])


def test_download_without_a_network_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="without a network fetch it elsewhere and give --src"):
        yodas.download(tmp_path, ["en000"])


# Runs a command of ours; prints which shards Python opened.
COUNTING = """
import sys
opened = []
sys.addaudithook(lambda name, a: opened.append(str(a[0])) if name == "open" and str(a[0]).endswith(".gz") else None)
from bilevel.bin import data, format, filter
{"data": data, "format": format, "filter": filter}[sys.argv[1]].main(sys.argv[2:])
print(len(opened), len(set(opened)))
"""


def run_counting(*command):
    done = subprocess.run([sys.executable, "-c", COUNTING, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "tree", "fs"), [("yodas", yodas_tree, 16000), ("yodas2", yodas2_tree, 24000)])
def test_stages_1_3_and_4(name, tree, fs, tmp_path):
    """As the recipes call them: no shard is opened in stages 1 and 4, each one once in stage 3."""
    src, train, valid = tree(tmp_path, n_shards=4, odd=True), "en000_0-2", "en000_3"
    sets = ["--sets", train, valid, "--unlabelled_sets", train, valid, "--data_dir", tmp_path / "data"]
    log = run_counting("data", "--corpus", name, "--src", src, *sets, "--allow_partial")
    assert log.endswith("\n0 0\n")
    assert not (tmp_path / "data" / train / "text").exists()
    for set_name in (train, valid):
        assert validate(tmp_path / "data" / set_name) == []
        assert set(read_scp(tmp_path / "data" / set_name / "utt2lang").values()) == {"en"}
    for set_name, n_shards in ((train, 3), (valid, 1)):
        log = run_counting("format", "--in_dir", tmp_path / "data" / set_name, "--max_bad_share", 0.3,
                           "--out_dir", tmp_path / "org" / set_name, "--fs", fs)  # fmt: skip
        assert log.endswith(f"\n{n_shards} {n_shards}\n")
        assert validate(tmp_path / "org" / set_name) == []
    argv = ["--in_dir", tmp_path / "org", "--out_dir", tmp_path / "dump"]
    argv += ["--unlabelled_sets", train, "--valid_sets", valid]
    filter.main([str(a) for a in argv])
    n_train = len(read_scp(tmp_path / "dump" / train / "wav.scp"))
    n_bad = len((tmp_path / "org" / train / "quarantine.tsv").read_text().splitlines())
    # The odd ones are 5, 3 of them bad; or 4, one of them bad and one, of 0.1 s, too short to train on.
    assert (n_train, n_bad) == ((12 + 5 - 3, 3) if name == "yodas" else (18 + 4 - 2, 1))
    assert len(read_scp(tmp_path / "dump" / valid / "wav.scp")) == (4 if name == "yodas" else 6)
    assert not list((tmp_path / "org").rglob("*.wav")), "nothing is unpacked"


def test_what_stage_3_says_of_the_odd_shard(tmp_path):
    prepare("yodas", yodas_tree(tmp_path, odd=True), ["en000"], tmp_path / "data", options=PARTIAL)
    argv = ["format", "--in_dir", tmp_path / "data/en000", "--out_dir", tmp_path / "org", "--max_bad_share", "0.5"]
    log = run_counting(*argv)
    assert "1 members are in no table, for instance 'x_-9_uVwXyZ-00009-00000200-00000300'" in log
    reasons = dict(line.split("\t")[::2] for line in (tmp_path / "org/quarantine.tsv").read_text().splitlines())
    assert reasons == {
        "=-Ab_3cDeF-g-00001-00000200-00000250": "no samples",
        "x_-9_uVwXyZ-00007-00000000-00000100": "all samples equal 0",
        "x_-9_uVwXyZ-00010-00000300-00000500": "not in the shard",
    }
