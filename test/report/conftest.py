"""A fabricated experiment folder: 4 methods, 3 seeds, two sets."""

import json
import math
import random
from pathlib import Path

import pytest

from bilevel.scoring.wer import score

METHODS = {"supervised": 0.36, "pretrain_finetune": 0.30, "weighted_sum": 0.33, "bljust": 0.26}
_WORDS = [
    "the",
    "a",
    "quick",
    "old",
    "boat",
    "river",
    "house",
    "morning",
    "garden",
    "small",
    "child",
    "walked",
    "across",
    "found",
    "seven",
    "lanterns",
    "under",
    "winter",
    "light",
    "and",
    "then",
    "slowly",
    "carried",
    "them",
    "home",
    "before",
    "rain",
    "began",
    "to",
    "fall",
    "over",
    "quiet",
    "hills",
    "they",
    "were",
    "waiting",
    "<odd>",
    "it's",
]


def _corrupt(words: list[str], rate: float, rng: random.Random) -> list[str]:
    hyp: list[str] = []
    for word in words:
        kind = rng.random() / rate
        hyp += [word] if kind > 0.75 else [] if kind > 0.55 else [rng.choice(_WORDS)]
        hyp += [rng.choice(_WORDS)] if rng.random() < rate / 5 else []
    return hyp


def _epochs(method: str, seed: int, n_epochs: int) -> list[dict]:
    rng = random.Random(f"{method} {seed}")
    rows = []
    for epoch in range(1, n_epochs + 1):
        done = epoch / n_epochs
        level = METHODS[method] + 0.7 * math.exp(-5 * done) + rng.gauss(0, 0.01)
        row = {
            "epoch": epoch,
            "update": 200 * epoch,
            "stage": "B" if done > 0.4 else "A",
            "train_upper_loss": 90 * level,
            "valid_upper_loss": 105 * level + 4 * done,
            "grad_norm_upper": 12 * math.exp(-2 * done + rng.gauss(0, 0.1)),
            "lr": 1e-3 * min(1, 5 * done) * (1.2 - done),
            "valid_wer_ctc": level,
            "valid_cer_ctc": 0.45 * level,
        }
        if method != "supervised":
            row |= {
                "train_lower_loss": 6.2 - 2.1 * done + rng.gauss(0, 0.03),
                "grad_norm_lower": 3 * math.exp(-done + rng.gauss(0, 0.1)),
                "gamma": {"bljust": min(1.0, 1.6 * done), "weighted_sum": 0.3}.get(method),
            }
        rows.append(row)
    return rows


def fabricate(exp_dir: Path, n_seeds: int = 3, n_utts: int = 120, n_epochs: int = 30) -> Path:
    """Write the folder as the recipe's scoring stage does."""
    for method, rate in METHODS.items():
        for seed in range(n_seeds):
            folder = exp_dir / f"asr_mini_{method}_seed{seed}"
            results = []
            for name, harder in (("dev", 1.0), ("test", 1.15)):
                rng = random.Random(name)
                refs = {
                    f"{name}-spk{i % 8:02d}-{i:04d}": " ".join(rng.choices(_WORDS, k=rng.randint(3, 16)))
                    for i in range(n_utts)
                }
                rng = random.Random(f"{method} {seed} {name}")
                hyps = {key: " ".join(_corrupt(text.split(), harder * rate, rng)) for key, text in refs.items()}
                place = folder / "decode_ctc_greedy" / name
                place.mkdir(parents=True)
                for file, table in (("ref", refs), ("text", hyps)):
                    (place / file).write_text("".join(f"{k} {v}\n" for k, v in table.items()), encoding="utf-8")
                for metric in ("wer", "cer"):
                    s = score(refs, hyps, metric=metric, utt2spk={key: key.split("-")[1] for key in refs})
                    s.write(place / f"score_{metric}.json")
                    results.append(
                        {
                            "set": name,
                            "metric": metric,
                            "value": s.value,
                            "low": s.low,
                            "high": s.high,
                            "n_utts": s.n_utts,
                            "signature": s.signature,
                        }
                    )
            cost = {"updates": 6000, "passes": 6000 if method == "supervised" else 12000, "audio_hours": 41.5 + seed,
                    "cpu_sec": 5400 + 300 * seed, "wall_sec": 3100, "peak_mem_mb": 812}  # fmt: skip
            record = {"method": method, "corpus": "mini", "seed": seed, "params": 712_345, "results": results,
                      "cost": cost, "config_sha256": "0" * 64,
                      "commit": "0123abc, 456def" if seed else "0123abc"}  # fmt: skip
            (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
            rows = _epochs(method, seed, n_epochs)
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return exp_dir


@pytest.fixture(scope="session")
def exp_dir(tmp_path_factory) -> Path:
    """The fabricated folder; tests that change it copy it first."""
    return fabricate(tmp_path_factory.mktemp("exp"))
