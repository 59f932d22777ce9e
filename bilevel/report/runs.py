"""The runs below an experiment folder: `result.json` and what lies beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bilevel.scoring.result import METRICS, Score

# Baselines first; the first one present is what the others are compared with. Other methods follow by name.
METHODS = ("supervised", "pretrain_finetune", "weighted_sum", "bljust", "two_stage", "sum", "static")
_KEYS = ("method", "corpus", "seed", "params", "results", "cost", "config_sha256", "commit")
_PROBE_KEYS = ("set", "align_exp", "labels")
# What a probe says of each kind of label (bilevel/models/label_quality.py).
QUALITIES = ("unit_purity", "label_purity", "pnmi", "perplexity")
_CONFLICT_KEYS = ("objectives", "pairs", "layers", "records")
_RESULT_KEYS = ("set", "metric", "value", "low", "high", "n_utts", "signature")


@dataclass(frozen=True)
class Decoding:
    """One entry of `results`, with the folder of the decoding that it came from where there is one.

    Attributes:
        corpus: Corpus of the run.
        set: Name of the test set.
        metric: For instance "wer".
        decode: Name of the decoding folder, or "".
        value: Value of the metric: a fraction for error rates, 0 to 100 for BLEU and chrF.
        low: Lower end of the 95 % interval, or None.
        high: Upper end of it.
        n_utts: Utterances scored.
        signature: How it was scored.
        folder: Folder with text, ref and score files, or None.
    """

    corpus: str
    set: str
    metric: str
    decode: str
    value: float
    low: float | None
    high: float | None
    n_utts: int
    signature: str
    folder: Path | None

    @cached_property
    def score(self) -> Score | None:
        """The score file, or None when there is none."""
        return None if self.folder is None else Score.read(self.folder / f"score_{self.metric}.json")


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        tag: Folder name, relative to the experiment folder.
        path: The folder.
        method: Training method.
        corpus: Corpus name.
        seed: Seed.
        params: Number of model parameters.
        decodings: Its results; a pre-training has none.
        cost: Updates, passes, audio_hours, cpu_sec, wall_sec, peak_mem_mb; any may be missing.
        commit: Source version; two with a comma where one trained and another scored.
        epochs: Rows of train.jsonl, one an epoch.
    """

    tag: str
    path: Path
    method: str
    corpus: str
    seed: int
    params: int | None
    decodings: tuple[Decoding, ...]
    cost: Mapping[str, float]
    commit: str
    epochs: tuple[Mapping[str, object], ...]

    @cached_property
    def trace(self) -> tuple[Mapping[str, object], ...]:
        """Rows of trace.jsonl: what a problem outside speech recognition logs as it descends."""
        return _read_rows(self.path / "trace.jsonl")

    @cached_property
    def probe(self) -> Mapping:
        """probe.json: what the labels of a pre-training say about characters; empty when nobody has asked."""
        file = self.path / "probe.json"
        if not file.exists():
            return {}
        facts = _load(file)
        _require(facts, _PROBE_KEYS, file)
        for kind, row in facts["labels"].items():
            _require(row, QUALITIES, f"{file}: labels[{kind!r}]")
        return facts

    @cached_property
    def conflict(self) -> Mapping:
        """conflict.json: cosines of pairs of objectives, layer by layer (bilevel/moo/conflict.py); empty without it."""
        file = self.path / "conflict.json"
        if not file.exists():
            return {}
        facts = _load(file)
        _require(facts, _CONFLICT_KEYS, file)
        expected = [len(facts["pairs"])] * len(facts["layers"])
        for number, record in enumerate(facts["records"]):
            _require(record, ("step", "cosine"), f"{file}: records[{number}]")
            if [len(row) for row in record["cosine"]] != expected:
                raise ValueError(
                    f"{file}: records[{number}]: expected {len(facts['layers'])} layers of {len(facts['pairs'])} pairs "
                    "each; train again, or remove the file"
                )
        return facts

    @cached_property
    def levels(self) -> Mapping[str, Sequence[str]]:
        """levels.json: level -> its objectives, as the training had them; empty without it."""
        file = self.path / "levels.json"
        return _load(file) if file.exists() else {}

    @property
    def kind(self) -> str:
        """`recognition` when its results are metrics of text, `pretraining` when it has none, `problem` otherwise."""
        if not self.decodings:
            return "pretraining"
        return "recognition" if all(d.metric in METRICS for d in self.decodings) else "problem"


def read_runs(exp_dir: Path) -> list[Run]:
    """All runs below a folder, baselines first, then by method, seed and tag.

    Raises:
        ValueError: There is none, or a file is not as it should be; the message names it.
    """
    runs = [_read_run(file, Path(exp_dir)) for file in Path(exp_dir).rglob("result.json")]
    if not runs:
        raise ValueError(
            f"{exp_dir}: no result.json below; every finished run writes one (stage 13 of asr.sh, stage 7 of ssl.sh)"
        )
    return sorted(runs, key=lambda run: (run.corpus, method_order(run.method), run.seed, run.tag))


def method_order(method: str) -> tuple[int, str]:
    """Sort key of methods: baselines first, others by name."""
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def methods_of(runs: Sequence[Run]) -> list[str]:
    """Methods of the runs, in report order."""
    return sorted({run.method for run in runs}, key=method_order)


def _read_run(file: Path, exp_dir: Path) -> Run:
    record = _load(file)
    _require(record, _KEYS, file)
    for number, entry in enumerate(record["results"]):
        _require(entry, _RESULT_KEYS, f"{file}: results[{number}]")
    folder = file.parent
    decodings: list[Decoding] = []
    for entry in record["results"]:
        decodings.append(_decoding(entry, record["corpus"], folder, [(d.folder, d.metric) for d in decodings]))
    return Run(
        tag=folder.relative_to(exp_dir).as_posix(),
        path=folder,
        method=record["method"],
        corpus=record["corpus"],
        seed=record["seed"],
        params=record["params"],
        decodings=tuple(decodings),
        cost={key: value for key, value in record["cost"].items() if value is not None},
        commit=record["commit"],
        epochs=_read_rows(folder / "train.jsonl"),
    )


def _decoding(entry: Mapping, corpus: str, folder: Path, taken: Sequence[tuple[Path | None, str]]) -> Decoding:
    """Attach the folder whose score has the entry's value: a run may hold several decodings of one set.

    Equal values take one folder each: two translations of one set may both have a BLEU of 0.
    """
    files = sorted(folder.glob(f"*/{entry['set']}/score_{entry['metric']}.json"))
    same = [file.parent for file in files if abs(_value(file) - entry["value"]) < 1e-9]
    if files and not same:
        raise ValueError(
            f"{folder / 'result.json'}: {entry['metric']} of {entry['set']} is {entry['value']}, but no score file "
            f"beside it says so, such as {files[0]}; run the scoring stage again"
        )
    free = [place for place in same if (place, entry["metric"]) not in taken]
    place = next(iter(free or same), None)
    fields = {key: entry[key] for key in _RESULT_KEYS}
    return Decoding(**fields, corpus=corpus, decode=place.parent.name if place else "", folder=place)


def _value(file: Path) -> float:
    record = _load(file)
    _require(record, ("value",), file)
    return record["value"]


def _read_rows(file: Path) -> tuple[Mapping[str, object], ...]:
    """Rows of a .jsonl file; a half-written last line, left by a killed run, is passed over."""
    if not file.exists():
        return ()
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{file}:{number}: not JSON ({error.msg}); remove the line") from None
    return tuple(rows)


def _load(file: Path) -> Mapping:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON ({error.msg}); run the stage that writes it again") from None
    if not isinstance(record, dict):
        raise ValueError(f"{file}: expected a JSON object, found {type(record).__name__}")
    return record


def _require(record: Mapping, keys: Sequence[str], place: object) -> None:
    if missing := [key for key in keys if key not in record]:
        raise ValueError(f"{place}: lacks {', '.join(missing)}; run the stage that writes it again")
