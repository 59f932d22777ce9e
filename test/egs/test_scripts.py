"""Every recipe script explains itself, refuses what it does not know, and is sound shell."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from recipe_kit import ROOT

RECIPES = sorted(path for task in ("asr1", "ssl1", "st1") for path in ROOT.glob(f"egs/*/{task}/run.sh"))
SCRIPTS = sorted([*ROOT.glob("egs/*/*/*.sh"), *ROOT.glob("utils/*.sh"), *ROOT.glob("tools/*.sh"), ROOT / ".ci/run"])
COMMON = {"stage", "stop_stage", "nj", "ngpu", "seed", "method", "dumpdir", "expdir", "src", "train_args"}
ASR = {"train_set", "valid_set", "test_sets", "unlabelled_set", "asr_config", "inference_config", "token_type", "nbpe"}
ASR |= {"pretrained", "freeze_encoder"}
SSL = {"ssl_config", "ssl_init", "rounds", "kmeans_exp", "kmeans_layer", "n_clusters", "align_exp", "probe_dir"}
SSL |= {"train_set", "valid_set", "label", "pool_sources"}
ST = {"langs", "objectives", "train_part", "valid_part", "test_parts"}
ST |= {"st_config", "st_token_type", "st_nbpe", "tokenize"}
OPTIONS = {"asr.sh": COMMON | ASR, "ssl.sh": COMMON | SSL, "st.sh": COMMON | ST}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def template(script: Path) -> str:
    """The script of egs/TEMPLATE that a recipe calls."""
    return re.search(r"TEMPLATE/\w+/(\w+\.sh)", script.read_text())[1]


def start(script: Path, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([script, *options], cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", RECIPES, ids=name)
def test_help_lists_the_options(script, tmp_path):
    done = start(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert set(re.findall(r"^  --(\w+) \[", done.stdout, re.MULTILINE)) >= OPTIONS[template(script)]
    assert all(line.startswith("  --") for line in done.stdout.splitlines()[3:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", RECIPES, ids=name)
def test_an_unknown_option_names_the_nearest_one(script, tmp_path):
    done = start(script, "--traim_args", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown option --traim_args; the nearest one is --train_args" in done.stderr


def test_options_take_dashes_and_equals_signs_and_need_a_value(tmp_path):
    script = ROOT / "egs/own/asr1/run.sh"
    done = start(script, "--stop-stage=0", "--recipe", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = start(script, "--stop_stage", cwd=tmp_path)
    assert done.returncode == 2
    assert "--stop_stage needs a value" in done.stderr


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("asr1", ["--asr_config", "train_smal"], "no configuration train_smal.yaml"),
        ("asr1", ["--freeze_encoder", "true"], "name its experiment with --pretrained"),
        ("asr1", ["--freeze_encoder", "yes"], "--freeze_encoder yes: expected true or false"),
        ("asr1", ["--pretrained", "nowhere"], "--pretrained nowhere: no such file or folder"),
        ("ssl1", ["--rounds", "cssl ptlock"], "no configuration ptlock.yaml"),
        ("ssl1", ["--method", "hubert"], "name its experiment with --kmeans_exp"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_runs(recipe, options, message, tmp_path):
    done = start(ROOT / f"egs/own/{recipe}/run.sh", *options, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("names", "code"), [("asr_de ssl", 0), ("asr_fr", 2), ("ast_de_en", 2), ("st_de", 2), ("asr_de_en", 2)]
)
def test_objectives_are_checked_before_anything_runs(names, code, tmp_path):
    options = ["--objectives", names, "--langs", "de zh", "--stop_stage", "0", "--recipe", str(tmp_path)]
    done = start(ROOT / "egs/mini_st/st1/run.sh", *options, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert (f"objective {names}: expected asr_LANG" in done.stderr) == (code == 2)


def test_translations_without_spaces_are_trained_on_the_characters_of_their_token_list(tmp_path):
    options = ["--objectives", "st_en_zh st_de_en", "--langs", "en de", "--recipe", str(tmp_path), "--stage", "10"]
    printed = start(ROOT / "egs/mini_st/st1/run.sh", *options, cwd=tmp_path).stdout
    lists = re.findall(r"--stream (\w+) \S+ \S+ (\S+) (\w+)", printed.splitlines()[-1])
    assert lists == [
        ("st_en_zh", "dump/token_list/char_st_en_zh", "char"),
        ("st_de_en", "dump/token_list/word_st_de_en", "word"),
    ]


def test_lists_may_span_lines(tmp_path):
    """What comes after the first line counts: here an objective that there is no language for."""
    options = ["--objectives", "asr_de\n  asr_fr", "--langs", "de\nzh", "--stop_stage", "0", "--recipe", str(tmp_path)]
    assert "objective asr_fr: expected" in start(ROOT / "egs/mini_st/st1/run.sh", *options, cwd=tmp_path).stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_are_executable_and_parse(script):
    assert os.access(script, os.X_OK) or script.parent.name == "utils", "chmod +x"
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI"):
            pytest.fail("shellcheck is not installed; .ci/run installs it")
        pytest.skip("shellcheck is not installed: apt-get install shellcheck")
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
