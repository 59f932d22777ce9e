import json

import pytest

from bilevel.corpora import MissingSplitError, multi
from bilevel.corpora.prepare import Options, prepare
from bilevel.data.datadir import read_datadir
from bilevel.testing.trees import multi_tree


def test_sources_keep_apart_under_their_names(tmp_path):
    rows = list(multi.utterances(multi_tree(tmp_path), "train"))
    assert {(u.source, u.id.split("-")[0], u.speaker.split("-")[0]) for u in rows} == {
        ("books", "books", "books"),
        ("meetings", "meetings", "meetings"),
    }
    assert len(rows) == len({u.id for u in rows}) == 4
    assert all(u.text for u in rows)


def test_a_source_without_the_split_is_left_out_and_a_split_nobody_has_is_refused(tmp_path):
    root = multi_tree(tmp_path)
    assert {u.source for u in multi.utterances(root, "dev")} == {"books"}
    with pytest.raises(MissingSplitError, match="splits found: dev, test, train"):
        list(multi.utterances(root, "eval"))


def test_text_of_some_sources_only_is_dropped(tmp_path):
    root = multi_tree(tmp_path)
    (root / "meetings" / "text").unlink()
    assert {u.text for u in multi.utterances(root, "train")} == {None}


def test_a_manifest_is_a_source_too_and_the_data_directory_names_the_sources(tmp_path):
    root = multi_tree(tmp_path)
    (root / "calls").mkdir()
    wav = next((root / "books" / "audio").glob("*.wav"))
    (root / "calls" / "train.jsonl").write_text(json.dumps({"id": "x", "audio": str(wav), "text": "go"}) + "\n")
    prepare("multi", root, ["train"], tmp_path / "data", unlabelled_sets=["train"], options=Options())
    rows = read_datadir(tmp_path / "data" / "train")
    assert {u.source for u in rows} == {"books", "calls", "meetings"}
    assert "calls-x" in {u.id for u in rows}
    assert (tmp_path / "data" / "train" / "utt2source").exists()
