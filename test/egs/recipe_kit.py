"""What the tests of recipes share: running a script, the schema of its results, and misspelt configurations."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY = """
frontend_conf: {n_mels: 20}
encoder_conf: {output_size: 16, attention_heads: 2, num_blocks: 2, linear_units: 16, cnn_module_kernel: 3}
max_epoch: 2
num_iters_per_epoch: 2
batch_bins: 200000
num_workers: 0
use_matplotlib: false
use_tensorboard: false
"""
CODES = "model_conf: {ssl_conf: {codebook_size: 8, p_mask: 0.04, mask_span_frames: 12}}\n"


def call(script: str, *options: object, cwd: Path, code: int = 0, timeout_sec: float = 600) -> str:
    """Run a script of `egs`; what it printed, if it ended with that code (errors included, unless that is 0)."""
    command = [ROOT / "egs" / script, *map(str, options)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_sec)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout if code == 0 else done.stdout + done.stderr


def run(script: str, recipe: Path, **options: object) -> str:
    """Run a recipe script in a folder of its own; the log when it succeeds."""
    recipe.mkdir(exist_ok=True)
    options = {"recipe": recipe, "nj": 1, "allow_partial": "true"} | options
    return call(f"{script}/run.sh", *(x for key, value in options.items() for x in (f"--{key}", value)), cwd=recipe)


def write_configs(recipe: Path) -> Path:
    """A recipe folder with `tiny`, an encoder and two epochs for any template, and `codes`, labels for it."""
    recipe.mkdir(exist_ok=True)
    (recipe / "tiny.yaml").write_text(TINY)
    (recipe / "codes.yaml").write_text(CODES)
    return recipe


def result_of(folder: Path) -> dict[str, Any]:
    """The result of an experiment, in the schema that all recipes write."""
    result = json.loads((folder / "result.json").read_text())
    assert result.keys() >= {"method", "corpus", "seed", "params", "results", "cost", "config_sha256", "commit"}
    assert result["cost"].keys() >= {"updates", "passes", "cpu_sec", "wall_sec", "peak_mem_mb"}
    for row in result["results"]:
        assert row.keys() == {"set", "metric", "value", "low", "high", "n_utts", "signature"}
    return result


def check_refused(
    typo: str, config: dict[str, Any], build: Callable[[dict], Any], capsys: pytest.CaptureFixture
) -> None:
    """A configuration with a misspelt key builds nothing, and what is said of it names the key."""
    key, value = next(iter(yaml.safe_load(typo).items()))
    config[key] = config[key] | value if isinstance(value, dict) else value
    word = typo.replace("{", " ").split(":")[-2].split()[-1]
    with pytest.raises((SystemExit, TypeError, ValueError)) as error:
        build(config)
    assert word in str(error.value) + capsys.readouterr().err
