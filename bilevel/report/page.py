"""report.html: one file that needs nothing else."""

import base64
import string
from collections.abc import Sequence
from html import escape
from importlib import resources

from bilevel.report.conflict import conflict_plots, conflict_table
from bilevel.report.markdown import environment
from bilevel.report.objectives import level_table, objective_plots, weight_table
from bilevel.report.plots import Plot, curve_plots, interval_plots
from bilevel.report.pretraining import pretraining_plots, pretraining_table, probe_table
from bilevel.report.problems import problem_tables, trace_plots
from bilevel.report.runs import Run, methods_of
from bilevel.report.summary import Summary
from bilevel.report.tables import Table, cost_table, methods_table, overview_tables
from bilevel.report.worst import WorstUtterance, worst_utterances
from bilevel.scoring.wer import Op

_CLASSES = {"correct": "ok", "substitution": "sub", "deletion": "del", "insertion": "ins"}
_LEGEND = (
    ("ok", "word", "word", "correct"),
    ("sub", "word", "ward", "substitution"),
    ("del", "word", "", "deletion"),
    ("ins", "", "word", "insertion"),
)
# Utterances shown of a set, fewer where there are many sets, and rows from which on a table scrolls by itself.
_N_WORST, _N_WORST_OF_ALL, _LONG = 12, 48, 40
_WRAPPED = 32  # characters from which on a cell may break into lines
_SEEDS = "Lines are means over seeds; bands reach from the least to the greatest seed."


def page(runs: Sequence[Run], summaries: Sequence[Summary], significance: Table, title: str) -> str:
    """The whole HTML document; `significance` is `significance_table`."""
    others = [run for run in runs if run.kind != "pretraining"]
    counts = {"method": len(methods_of(others)), "run": len(others), "pre-training": len(runs) - len(others)}
    parts = [f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items() if n]
    lead = f"{', '.join(parts)} on {', '.join(sorted({run.corpus for run in runs}))}"
    sections = [
        ("methods", "Results", _results(others, summaries)),
        ("significance", "Significance", _table(significance)),
        ("objectives", "Objectives", _objectives(runs)),
        ("pretraining", "Pre-training", _pretraining(runs)),
        ("problems", "Problems", _problems(runs)),
        ("curves", "Training curves", _curves(others)),
        ("worst", "Worst utterances", _worst(summaries)),
        ("cost", "Cost", _table(cost_table(runs))),
        ("environment", "Environment", _environment(runs)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{heading}</h2>{html}</section>' for name, heading, html in sections)
    template = resources.files("bilevel.report").joinpath("page.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(title=escape(title), lead=escape(lead), links=links, body=body)


def _table(table: Table) -> str:
    """A table that sorts by a click on a column's name."""
    if not table.rows:
        return ""
    numeric = [any(row[n].order is not None for row in table.rows) for n in range(len(table.header))]
    kinds = ["num" if number else "txt" for number in numeric]
    head = "".join(
        f'<th class="{kind}" aria-sort="none"><button type="button">{escape(name)}</button></th>'
        for name, kind in zip(table.header, kinds, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for cell, kind in zip(row, kinds, strict=True):
            order = "" if cell.order is None else f' data-order="{cell.order!r}"'
            css = f"{kind}{' best' if cell.best else ''}{' text' if len(cell.text) > _WRAPPED else ''}"
            cells.append(f'<td class="{css}"{order}>{escape(cell.text)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    css = "wide long" if len(rows) > _LONG else "wide"
    return (
        f'<div class="{css}"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="note">{escape(table.note)}</p>'
    )


def _figures(plots: Sequence[Plot]) -> str:
    """Plots in a grid; each is an image of its own, so that SVG ids cannot clash."""
    images = []
    for plot in plots:
        data = base64.b64encode(plot.svg.encode()).decode()
        css = ' class="row"' if plot.wide else ""
        images.append(f'<img{css} src="data:image/svg+xml;base64,{data}" alt="{escape(plot.alt)}">')
    return f'<div class="grid">{"".join(images)}</div>' if images else ""


def _results(runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    overview = "".join(f"<h3>{escape(metric)}</h3>{_table(table)}" for metric, table in overview_tables(summaries))
    heading = "<h3>All sets</h3>" if overview else ""
    return overview + heading + _table(methods_table(summaries)) + _intervals(runs, summaries)


def _intervals(runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    note = "Diamonds are means, bars 95 % intervals, circles single runs. The axes do not start at 0."
    figures = _figures(interval_plots(summaries, methods_of(runs)))
    return f'{figures}<p class="note">{note}</p>' if figures else ""


def _objectives(runs: Sequence[Run]) -> str:
    html = _table(level_table(runs))
    if weights := _table(weight_table(runs)):
        html += f"<h3>Weights</h3>{weights}"
    if worst := _table(conflict_table(runs)):
        note = "Orange: two objectives pull in opposite directions; purple: they agree. Colours end at \u00b10.5."
        figures = _figures(conflict_plots(runs))
        html += f'<h3>Conflicts</h3>{worst}{figures}<p class="note">{note}</p>'
    figures = _figures(objective_plots(runs, methods_of([run for run in runs if run.kind != "pretraining"])))
    return html + (f'<h3>Curves</h3>{figures}<p class="note">{_SEEDS}</p>' if figures else "")


def _pretraining(runs: Sequence[Run]) -> str:
    labels = _table(probe_table(runs))
    figures = _figures(pretraining_plots(runs))
    html = _table(pretraining_table(runs)) + (f"<h3>Labels</h3>{labels}" if labels else "")
    return html + (f'{figures}<p class="note">{_SEEDS}</p>' if figures else "")


def _problems(runs: Sequence[Run]) -> str:
    parts = [f"<h3>{escape(corpus)}</h3>{_table(table)}" for corpus, table in problem_tables(runs)]
    note = "Lines are means over seeds, against mean seconds; bands reach from the least to the greatest seed."
    figures = _figures(trace_plots(runs))
    return "".join(parts) + (f'{figures}<p class="note">{note}</p>' if figures else "")


def _curves(runs: Sequence[Run]) -> str:
    figures = _figures(curve_plots(runs))
    return f'{figures}<p class="note">{_SEEDS}</p>' if figures else ""


def _worst(summaries: Sequence[Summary]) -> str:
    parts = []
    n_sets = len({(s.key[0], s.key[1], s.key[3]) for s in summaries if s.key[2] == "wer"})
    n_worst = max(3, min(_N_WORST, _N_WORST_OF_ALL // max(n_sets, 1)))
    for (corpus, name, decode), utterances in worst_utterances(summaries, n_worst).items():
        place = escape(f"{corpus} / {name} \u00b7 {decode.removeprefix('decode_')}")
        folds = "".join(_utterance(u, opened=n == 0 and not parts) for n, u in enumerate(utterances))
        parts.append(f"<h3>{place}</h3>{folds}")
    if not parts:
        return ""
    legend = "".join(f'{_op(c, ref, hyp)}<span class="name">{what}</span>' for c, ref, hyp, what in _LEGEND)
    note = (
        f"The {n_worst} utterances of a set with most errors, summed over the first run of every method: errors of "
        "words, or of characters where words have no boundaries. "
        "Upper line: reference; lower line: hypothesis."
    )
    return f'<p class="note">{note}</p><div class="legend">{legend}</div>{"".join(parts)}'


def _utterance(utterance: WorstUtterance, opened: bool) -> str:
    rows = []
    for method, ops in utterance.alignments.items():
        n_errors = sum(op.kind != "correct" for op in ops)
        columns = "".join(_op(_CLASSES[op.kind], op.ref, op.hyp) for op in _padded(ops))
        rows.append(f'<div class="who">{escape(method)}<small>{_plural(n_errors)}</small></div><div>{columns}</div>')
    summary = (
        f"<code>{escape(utterance.id)}</code><b>{_plural(utterance.n_errors)}</b><span>{escape(utterance.ref)}</span>"
    )
    return (
        f'<details class="utt"{" open" if opened else ""}><summary>{summary}</summary>'
        f'<div class="align">{"".join(rows)}</div></details>'
    )


def _plural(n_errors: int) -> str:
    return f"{n_errors} error" + ("" if n_errors == 1 else "s")


def _padded(ops: Sequence[Op]) -> Sequence[Op]:
    return ops or [Op("correct", "", "")]


def _op(css: str, ref: str, hyp: str) -> str:
    """One column: the reference word above the hypothesis word."""
    return f'<span class="op {css}"><i>{escape(ref) or "&nbsp;"}</i><i>{escape(hyp) or "&nbsp;"}</i></span>'


def _environment(runs: Sequence[Run]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in environment(runs))
    return f"<dl>{rows}</dl>"
