"""RESULTS.md: ESPnet's tables, and ours."""

import datetime
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from bilevel.report.conflict import conflict_table
from bilevel.report.objectives import level_table, weight_table
from bilevel.report.pretraining import pretraining_table, probe_table
from bilevel.report.problems import problem_tables
from bilevel.report.runs import Run
from bilevel.report.summary import Summary
from bilevel.report.tables import Cell, Table, cost_table, methods_table, overview_tables
from bilevel.scoring.bleu import verbose
from bilevel.scoring.result import METRICS, RATES, Score


def environment(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What made the results: date, versions, commits; nothing heavy is imported."""
    return [
        ("date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("python version", platform.python_version()),
        ("pytorch version", _version("torch")),
        ("espnet version", _version("espnet")),
        ("commit", ", ".join(sorted({name for run in runs for name in run.commit.split(", ")}))),
    ]


def results_md(
    runs: Sequence[Run], summaries: Sequence[Summary], significance: Table, made_by: str | None = None
) -> str:
    """The text of RESULTS.md.

    Args:
        runs: All runs.
        summaries: Of those that are speech recognition.
        significance: `significance_table`.
        made_by: Command that made the runs.
    """
    parts = ["<!-- made by bilevel report -->", "# RESULTS", "## Environments"]
    facts = [*environment(runs), *([("command", made_by)] if made_by else [])]
    parts.append("\n".join(f"- {name}: `{value}`" for name, value in facts))
    tables = [(f"Overview: {metric}", table) for metric, table in overview_tables(summaries)]
    tables += [("Methods", methods_table(summaries)), ("Significance", significance)]
    tables += [("Objectives", level_table(runs)), ("Weights of the objectives", weight_table(runs))]
    tables += [("Conflicts between objectives", conflict_table(runs))]
    tables += [("Pre-training", pretraining_table(runs)), ("Labels of the pre-training", probe_table(runs))]
    tables += problem_tables(runs)
    for title, table in (*tables, ("Cost", cost_table(runs))):
        if table.rows:
            parts += [f"## {title}", _markdown(table), table.note]
    for run in runs:
        sections = [(metric, _espnet_table(run.path, metric)) for metric in METRICS]
        if any(text for _, text in sections):
            parts.append(f"## {run.tag}")
            parts += [part for metric, text in sections if text for part in (f"### {METRICS[metric].name}", text)]
    return "\n\n".join(parts) + "\n"


def _espnet_table(folder: Path, metric: str) -> str:
    """ESPnet's table of one run: counts, then shares of the reference in per cent; or BLEU in sacreBLEU's own words."""
    lines = []
    for file in sorted(folder.glob(f"*/*/score_{metric}.json")):
        score, name = Score.read(file), file.parent.relative_to(folder).as_posix()
        if metric not in RATES:
            lines.append(f"|{name}|{score.n_utts}|{score.value:.2f}|{verbose(score)}|")
            continue
        total = score.total
        parts = (total.correct, total.substitutions, total.deletions, total.insertions, total.errors)
        shares = "|".join(f"{100 * part / total.n_ref:.1f}" for part in parts)
        lines.append(f"|{name}|{total.n_utts}|{total.n_ref}|{shares}|{100 * total.sentence_error_rate:.1f}|")
    head = "|dataset|Snt|score|verbose_score|\n|---|---:|---:|---|\n"
    if metric in RATES:
        head = "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
    return head + "\n".join(lines) if lines else ""


def _markdown(table: Table) -> str:
    numeric = [any(row[n].order is not None for row in table.rows) for n in range(len(table.header))]
    rows = [table.header, ["---:" if number else "---" for number in numeric]]
    rows += [[_cell(cell) for cell in row] for row in table.rows]
    return "\n".join(f"|{'|'.join(row)}|" for row in rows)


def _cell(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")
    return f"**{text}**" if cell.best else text


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
