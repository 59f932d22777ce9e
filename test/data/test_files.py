"""What a finished stage remembers of its inputs."""

from bilevel.data.files import Stamp


def test_reports_about_other_sets_are_no_input(tmp_path):
    """overlap.json of a set lists the training sets that it was compared with; another training set changes nothing."""
    folder = tmp_path / "dev"
    folder.mkdir()
    (folder / "text").write_text("a b\n")
    (folder / "overlap.json").write_text('{"train_sets": ["de"]}')
    stamp = Stamp(tmp_path / "stamp.json", [folder], {})
    stamp.write()
    (folder / "overlap.json").write_text('{"train_sets": ["de", "en"]}')
    assert Stamp(tmp_path / "stamp.json", [folder], {}).fresh()
    (folder / "text").write_text("a c\n")
    assert not Stamp(tmp_path / "stamp.json", [folder], {}).fresh()
