import pytest

from bilevel.espnet.config import digest, merge, method_file, read_yaml, training_config


def test_merge_goes_into_nested_mappings_and_leaves_its_arguments():
    base = {"a": 1, "optim_conf": {"lr": 1, "betas": [1, 2]}, "x": {"y": {"z": 1, "w": 2}}}
    merged = merge(base, {"optim_conf": {"betas": [3]}, "x": {"y": {"w": 5}}, "new": {"k": 0}})
    assert merged == {
        "a": 1,
        "optim_conf": {"lr": 1, "betas": [3]},
        "x": {"y": {"z": 1, "w": 5}},
        "new": {"k": 0},
    }
    merged["x"]["y"]["z"] = 99
    assert base == {"a": 1, "optim_conf": {"lr": 1, "betas": [1, 2]}, "x": {"y": {"z": 1, "w": 2}}}


def test_another_class_does_not_inherit_the_old_one_s_arguments():
    base = {"encoder": "conformer", "encoder_conf": {"kernel": 31}}
    assert merge(base, {"encoder": "rnn"}) == {"encoder": "rnn"}
    assert merge(base, {"encoder": "rnn", "encoder_conf": {"cells": 2}})["encoder_conf"] == {"cells": 2}
    assert merge(base, {"encoder": "conformer", "encoder_conf": {"heads": 2}})["encoder_conf"] == {
        "kernel": 31,
        "heads": 2,
    }


def test_files_merge_in_order_and_overrides_win(tmp_path):
    (tmp_path / "a.yaml").write_text("optim: adamw\noptim_conf: {lr: 0.1, eps: 1}\nmax_epoch: 3\n")
    (tmp_path / "b.yaml").write_text("optim_conf: {lr: 0.2}\n")
    config = training_config(
        [tmp_path / "a.yaml", tmp_path / "b.yaml"],
        ["max_epoch=7", "model_conf.ssl_conf.p_mask=0.05", "optim_conf.eps=2", "flag=true", "name=a=b"],
    )
    assert config == {
        "optim": "adamw",
        "optim_conf": {"lr": 0.2, "eps": 2},
        "max_epoch": 7,
        "model_conf": {"ssl_conf": {"p_mask": 0.05}},
        "flag": True,
        "name": "a=b",
    }


def test_override_without_a_value_is_refused():
    with pytest.raises(ValueError, match="override 'max_epoch': expected key=value"):
        training_config([], ["max_epoch"])
    with pytest.raises(ValueError, match=r"override 'betas=\[1': .*yaml"):
        training_config([], ["betas=[1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "expected key: value lines, found list"),
        ("a: [1\n", "only plain yaml is read"),
        ("a: !!python/object/apply:os.getcwd []\n", "only plain yaml is read"),
    ],
)
def test_bad_yaml_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.yaml: .*{message}"):
        read_yaml(path)


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_methods_are_found_by_name(tmp_path):
    for name in ("bljust", "supervised"):
        (tmp_path / f"{name}.yaml").write_text("")
    assert method_file("bljust", tmp_path) == tmp_path / "bljust.yaml"
    with pytest.raises(ValueError, match=r"method 'bl-just': expected one of bljust, supervised; the nearest.* bljust"):
        method_file("bl-just", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none.* holds no yaml"):
        method_file("bljust", tmp_path / "none")


def test_the_digest_is_that_of_the_content():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
