"""Pre-training recipes through their stages, on miniature corpora in the published layouts."""

import json
import subprocess
from pathlib import Path

import pytest

from bilevel.data.tables import read_scp
from bilevel.testing.ami_tree import ami_tree
from bilevel.testing.trees import kaldi_tree, multi_tree
from bilevel.testing.yodas_tree import yodas_tree

ROOT = Path(__file__).resolve().parents[2]
ENCODER = "{output_size: 16, attention_heads: 2, num_blocks: 2, linear_units: 16, cnn_module_kernel: 3}"
TINY = f"""
frontend_conf: {{n_mels: 20}}
encoder_conf: {ENCODER}
max_epoch: 2
num_iters_per_epoch: 2
batch_bins: 200000
num_workers: 0
use_matplotlib: false
use_tensorboard: false
"""
CODES = "model_conf: {ssl_conf: {codebook_size: 8, p_mask: 0.04, mask_span_frames: 12}}\n"


def run(kind: str, name: str, recipe: Path, **options: object) -> str:
    """Run a recipe script in a folder of its own; the log when it succeeds."""
    recipe.mkdir(exist_ok=True)
    (recipe / "tiny.yaml").write_text(TINY)
    (recipe / "codes.yaml").write_text(CODES)
    config = {"asr": "train_small tiny", "ssl": "train_small tiny codes"}[kind]
    options = {"recipe": recipe, f"{kind}_config": config, "nj": 1, "allow_partial": "true"} | options
    pairs = (str(x) for key, value in options.items() for x in (f"--{key}", value))
    command = [ROOT / f"egs/{name}/{kind}1/run.sh", *pairs]
    done = subprocess.run(command, cwd=recipe, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pre-training on two sources, and the folder of its recipe."""
    folder = tmp_path_factory.mktemp("multi")
    src = multi_tree(folder)
    log = run("ssl", "multi", folder / "recipe", src=src, method="birq", ssl_tag="birq", stop_stage=9)
    return folder / "recipe", src, log


def test_two_sources_from_audio_to_a_packed_encoder(pool):
    recipe, _, log = pool
    assert "sources: books, meetings" in log
    assert {"birq/packed.zip", "birq/latest.pth"} <= {f"birq/{p.name}" for p in (recipe / "exp/birq").iterdir()}
    rows = [json.loads(line) for line in (recipe / "exp/birq/train.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[-1]["passes"] == 2  # one for each source
    assert rows[-1].keys() >= {"train_lower_loss", "ssl_label_perplexity", "ssl_enhanced_perplexity", "ssl_agreement"}
    cost = json.loads((recipe / "exp/birq/cost.json").read_text())
    assert (cost["updates"], cost["passes"]) == (4, 8)


def test_a_second_call_does_nothing_again(pool):
    recipe, src, _ = pool
    before = (recipe / "exp/birq/latest.pth").stat().st_mtime_ns
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="birq", stop_stage=9)
    assert log.count("skip: ") >= 6
    assert (recipe / "exp/birq/latest.pth").stat().st_mtime_ns == before


def test_local_steps_start_from_the_pretraining_head_included(pool):
    recipe, src, _ = pool
    (recipe / "steps.yaml").write_text("solver_conf: {n_inner: 1, lr: 0.001}\n")
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="ptloc", stage=6,
              ssl_config="train_small tiny codes steps", ssl_init=recipe / "exp/birq")  # fmt: skip
    assert "pretrained: ssl: " in log
    assert "pretrained: not taken: global_step" in log
    assert json.loads((recipe / "exp/ptloc/cost.json").read_text())["passes"] == 16


def test_relabelling_recognition_and_probe(pool, tmp_path):
    recipe, src, _ = pool
    log = run("ssl", "multi", recipe, src=src, method="hubert", ssl_tag="hubert", stage=5, n_clusters=6,
              kmeans_exp=recipe / "exp/birq")  # fmt: skip
    targets = recipe / "exp/kmeans6_birq_train_10h_seed0"
    assert set(read_scp(targets / "train")) == set(read_scp(recipe / "dump/raw/train/wav.scp"))
    assert json.loads((targets / "kmeans.json").read_text())["layer"] == 1  # 70 % of two blocks
    own = kaldi_tree(tmp_path, n_utterances=4)
    asr = tmp_path / "asr"
    log = run("asr", "own", asr, src=own, method="supervised", token_type="char", asr_tag="asr", max_sec=20,
              pretrained=recipe / "exp/hubert")  # fmt: skip
    assert "pretrained: encoder: " in log
    assert (asr / "exp/asr/result.json").exists()
    log = run("ssl", "multi", recipe, src=src, method="birq", ssl_tag="birq", stage=8, stop_stage=8,
              align_exp=asr / "exp/asr", probe_dir=asr / "dump/raw/test")  # fmt: skip
    found = json.loads((recipe / "exp/birq/probe.json").read_text())["labels"]
    assert set(found) == {"anchor", "enhanced"}
    assert all(0 <= row["pnmi"] <= 1 and row["unit_purity"] > 0 for row in found.values())
    assert "| anchor | " in log


def test_hubert_without_clusters_and_an_encoder_that_does_not_fit_are_refused(pool, tmp_path):
    recipe, src, _ = pool
    with pytest.raises(AssertionError, match="name its experiment with --kmeans_exp"):
        run("ssl", "multi", recipe, src=src, method="hubert")
    own = kaldi_tree(tmp_path, n_utterances=4)
    with pytest.raises(AssertionError, match="expected at least 90%"):
        run("asr", "own", tmp_path / "asr", src=own, method="supervised", token_type="char",
            pretrained=recipe / "exp/birq", train_args="encoder_conf.output_size=24")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tree", "sets"),
    [
        ("ami", ami_tree, {"train_set": "ihm_train", "valid_set": "ihm_dev"}),
        ("yodas", yodas_tree, {}),
    ],
)
def test_published_layouts_through_every_stage(name, tree, sets, tmp_path):
    log = run("ssl", name, tmp_path / "recipe", src=tree(tmp_path), method="bestrq", ssl_tag="x", stop_stage=9, **sets)
    assert "unpacked, it encodes" in log
    assert json.loads((tmp_path / "recipe/exp/x/cost.json").read_text())["updates"] == 4
