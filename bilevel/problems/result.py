"""result.json and trace.jsonl of a run on a problem of this package, in the form that `bilevel report` reads."""

import hashlib
import json
import resource
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bilevel.data.commit import commit
from bilevel.data.files import write_lines, write_text


def write_result(
    exp_dir: Path,
    method: str,
    corpus: str,
    seed: int,
    params: int,
    results: Iterable[Mapping[str, Any]],
    cost: Mapping[str, float],
    config: Mapping[str, Any],
) -> None:
    """Write EXP_DIR/result.json atomically.

    Args:
        exp_dir: Folder of the run.
        method: Name of the method.
        corpus: Name of the problem instance, such as "svm_diabetes" or "transport_three_node".
        seed: Seed of the run.
        params: Number of upper and lower variables.
        results: One mapping each with set, metric, value, n_utts (items that the value is taken over) and signature
            (all that changes the value); `low` and `high` are null unless given.
        cost: updates, passes and wall_sec; cpu_sec and peak_mem_mb are this process's unless given.
        config: All settings, plain types; only its digest is kept.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    process = {"cpu_sec": usage.ru_utime + usage.ru_stime, "peak_mem_mb": usage.ru_maxrss / 1024}
    record = {
        "method": method,
        "corpus": corpus,
        "seed": seed,
        "params": params,
        "results": [{"low": None, "high": None} | dict(entry) for entry in results],
        "cost": process | dict(cost),
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "commit": commit(),
    }
    write_text(Path(exp_dir) / "result.json", json.dumps(record, indent=1, allow_nan=False) + "\n")


def write_trace(exp_dir: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write EXP_DIR/trace.jsonl, one row ("step", "seconds" and metrics) a line."""
    write_lines(Path(exp_dir) / "trace.jsonl", (json.dumps(row) for row in rows))
