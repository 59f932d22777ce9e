"""Pre-trainings in the report: beside recognition of a corpus of the same name, and alone."""

import json
import math
import shutil
from pathlib import Path

import pytest

from bilevel.bin import report
from bilevel.report.plots import curve_plots, draw_svg, legend
from bilevel.report.pretraining import pretraining_plots, pretraining_table, probe_table
from bilevel.report.problems import problem_tables
from bilevel.report.runs import read_runs
from bilevel.report.summary import summarise
from bilevel.report.tables import cost_table

SOURCES = ("es", "fr")
LABELS = {"bestrq": 4.0, "birq": 8.0}
N_EPOCHS = 4


def _row(label: str, seed: int, epoch: int) -> dict:
    loss = LABELS[label] + 0.1 * seed + math.exp(-epoch)
    row = {"epoch": epoch, "update": 250 * epoch, "train_lower_loss": loss, "valid_lower_loss": loss + 0.2, "lr": 1e-3}
    row |= {"ssl_acc": 0.2 + 0.01 * seed, "valid_ssl_acc": 0.25 + 0.01 * seed, "grad_norm": 1.0, "passes": 2.0}
    row |= {"ssl_label_perplexity": 30.0 + seed, "ssl_feature_std": 0.5}
    for number, name in enumerate(SOURCES):
        row |= {f"ssl_loss_{name}": loss + number, f"mix_{name}": 0.25 + 0.5 * number}
    if label == "birq":
        row |= {"ssl_enhanced_perplexity": 12.0 + seed, "ssl_enhanced_entropy": 1.2, "ssl_agreement": 0.05 * seed}
        row |= {"ssl_loss_anchor": 3.5, "ssl_loss_enhanced": 2.5}
    return row


def fabricate(exp_dir: Path, n_seeds: int = 2) -> Path:
    """Write the folders as stages 7 and 8 of ssl.sh do."""
    for label in LABELS:
        for seed in range(n_seeds):
            folder = exp_dir / f"{label}_seed{seed}"
            folder.mkdir(parents=True)
            record = {"method": label, "corpus": "mini", "seed": seed, "params": 500_000, "results": [],
                      "cost": {"updates": 1000, "passes": 3000, "wall_sec": 720.0},
                      "config_sha256": "0" * 64, "commit": "abc"}  # fmt: skip
            (folder / "result.json").write_text(json.dumps(record))
            rows = [_row(label, seed, epoch) for epoch in range(1, N_EPOCHS + 1)]
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            quality = {"unit_purity": 0.3 + 0.1 * seed, "label_purity": 0.2, "pnmi": 0.4, "perplexity": 40.0}
            kinds = ("anchor",) if label == "bestrq" else ("anchor", "enhanced")
            probe = {"set": "dev", "align_exp": "ctc", "utterances": 9, "labels": dict.fromkeys(kinds, quality)}
            (folder / "probe.json").write_text(json.dumps(probe))
    return exp_dir


@pytest.fixture
def alone(tmp_path):
    return fabricate(tmp_path / "ssl")


@pytest.fixture
def both(exp_dir, tmp_path):
    """With recognition of the same corpus, one method of it under the label of a pre-training."""
    for folder in exp_dir.glob("*_seed0"):
        shutil.copytree(folder, tmp_path / "ssl" / folder.name)
    fabricate(tmp_path / "ssl", n_seeds=1)
    file = tmp_path / "ssl" / "asr_mini_bljust_seed0" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"method": "birq"}))
    return tmp_path / "ssl"


def cells(table):
    """Text of the cells, by method and column name."""
    column = table.header.index("Method")
    return {row[column].text: dict(zip(table.header, (c.text for c in row), strict=True)) for row in table.rows}


def test_a_row_is_the_last_epoch_over_the_runs_of_a_label(alone):
    rows = cells(pretraining_table(read_runs(alone)))
    low = 4.0 + math.exp(-N_EPOCHS)
    assert rows["bestrq"]["Training loss"] == f"{low + 0.05:.3f} ({low:.3f} \u2013 {low + 0.1:.3f})"
    assert rows["bestrq"]["Validation loss"] == f"{low + 0.25:.3f} ({low + 0.2:.3f} \u2013 {low + 0.3:.3f})"
    assert rows["birq"]["Accuracy %"] == "25.5 (25.0 \u2013 26.0)"
    assert rows["birq"]["Enhanced perplexity"] == "12.5 (12.0 \u2013 13.0)"
    assert rows["birq"]["Agreement %"] == "2.5 (0.0 \u2013 5.0)"
    assert rows["bestrq"]["Agreement %"] == "\u2013"
    assert {row["Runs"] for row in rows.values()} == {"2"}


def test_one_run_has_no_range_and_nobodys_columns_are_left_out(alone):
    for folder in (*alone.glob("birq_seed*"), alone / "bestrq_seed1"):
        shutil.rmtree(folder)
    table = pretraining_table(read_runs(alone))
    assert table.header == ("Method", "Runs", "Training loss", "Validation loss", "Accuracy %", "Anchor perplexity")
    assert [cell.text for cell in table.rows[0][-2:]] == ["25.0", "30.0"]
    assert table.note.startswith("Corpus: mini.")


def test_a_loss_that_left_the_numbers_is_said(alone):
    with (alone / "birq_seed1" / "train.jsonl").open("a") as stream:
        stream.write(json.dumps(_row("birq", 1, N_EPOCHS + 1) | {"train_lower_loss": math.nan}) + "\n")
    row = cells(pretraining_table(read_runs(alone)))["birq"]
    assert row["Training loss"] == "not finite"
    assert row["Validation loss"].startswith("8.2")


def test_probe_has_a_row_for_each_kind_of_label(alone):
    table = probe_table(read_runs(alone))
    assert table.header == ("Method", "Labels", "Runs", "Unit purity %", "Label purity %", "PNMI", "Perplexity")
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("bestrq", "anchor"),
        ("birq", "anchor"),
        ("birq", "enhanced"),
    ]
    assert {row[3].text for row in table.rows} == {"35.0 (30.0 \u2013 40.0)"}
    assert table.note.startswith("Corpus: mini. Set: dev. Aligned by: ctc.")
    for file in alone.glob("*/probe.json"):
        file.unlink()
    assert probe_table(read_runs(alone)).rows == ()


def test_a_probe_that_lacks_something_is_named(alone):
    file = alone / "birq_seed0" / "probe.json"
    for facts, match in (
        ({"set": "dev"}, "probe.json: lacks align_exp, labels"),
        ({"set": "d", "align_exp": "e", "labels": {"anchor": {}}}, r"labels\['anchor'\]: lacks unit_purity"),
    ):
        file.write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=match):
            probe_table(read_runs(alone))


def test_every_source_has_panels_of_its_own_and_what_nobody_logged_has_none(alone):
    titles = [plot.title for plot in pretraining_plots(read_runs(alone))]
    for what in ("Loss on source", "Mix: source"):
        assert [title for title in titles if title.startswith(what)] == [f"{what} {s} \u00b7 mini" for s in SOURCES]
    assert len(titles) == 9 + 2 * len(SOURCES)
    for folder in alone.glob("birq_seed*"):
        shutil.rmtree(folder)
    fewer = {plot.title for plot in pretraining_plots(read_runs(alone))}
    gone = ("Loss by labels", "Anchor and enhanced labels agree", "Entropy of enhanced labels")
    assert set(titles) - fewer == {f"{title} \u00b7 mini" for title in gone}


def test_recognition_and_pretraining_of_one_corpus_do_not_mix(both):
    runs = read_runs(both)
    assert all(plot.alt.endswith("per epoch for bestrq, birq") for plot in pretraining_plots(runs)[:3])
    assert problem_tables(runs) == []
    assert {s.method for s in summarise(runs)} == {"supervised", "pretrain_finetune", "weighted_sum", "birq"}
    assert {len(s.seeds) for s in summarise(runs)} == {1}
    cost = cells(cost_table(runs))
    assert [cost[name]["Updates"] for name in ("birq", "birq (pre-training)")] == ["6,000", "1,000"]
    report.main([str(both)])
    text, html = ((both / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    assert "|bestrq|" not in text.split("## Pre-training")[0]
    assert "|bestrq|1|" in text.split("## Pre-training")[1].split("## Cost")[0]
    assert "4 methods, 4 runs, 2 pre-trainings on mini" in html
    section = html.split('<section id="pretraining">')[1].split("</section>")[0]
    assert section.count("<img ") == 9 + 2 * len(SOURCES)
    curves = html.split('<section id="curves">')[1].split("</section>")[0]
    recognition = curve_plots([run for run in runs if run.kind == "recognition"])
    assert curves.count("<img ") == len(recognition) == 7
    assert not any("bestrq" in plot.alt for plot in recognition)


def test_a_folder_of_pretrainings_alone_has_a_report(alone):
    report.main([str(alone)])
    text, html = ((alone / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Environments", "## Pre-training", "## Labels of the pre-training", "## Cost"]
    assert "<h1>Results</h1><p>4 pre-trainings on mini</p>" in html
    for name in ("methods", "significance", "problems", "curves", "worst"):
        assert f'<section id="{name}">' not in html
    with pytest.raises(ValueError, match=r"'test WER': expected one of .*Codes in use"):
        report.main([str(alone), "--picture", "x.svg"])
    with pytest.raises(ValueError, match="there are no error rates to"):
        report.main([str(alone), "--baseline", "birq"])


def test_picture_of_code_usage(alone, tmp_path):
    title = "Codes in use"
    report.main([str(alone), "--picture", str(tmp_path / "a.svg"), "--picture_of", title])
    (plot,) = (plot for plot in pretraining_plots(read_runs(alone)) if plot.title.startswith(title))
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == plot.svg


def test_a_pretraining_without_curves_has_a_row(alone):
    for file in alone.glob("*/*.jsonl"):
        file.unlink()
    table = pretraining_table(read_runs(alone))
    assert table.header == ("Method", "Runs")
    assert pretraining_plots(read_runs(alone)) == []


@pytest.mark.parametrize(
    "names", [["a"], ["bestrq", "birq", "hubert"], [f"supervised from method_{i}" for i in "abcdefg"]]
)
def test_titles_and_legends_stay_inside_and_leave_the_axes_their_room(names):
    seen = {}

    def draw(axes):
        for name in names:
            axes.plot([0, 1], label=name)
        legend(axes)
        seen["figure"] = axes.figure

    draw_svg(draw, (5.8, 3.7), "Loss on source of_a_rather_long_name_of_a_folder \u00b7 and a corpus with a long name")
    figure = seen["figure"]
    whole, axes = figure.bbox, figure.axes[0].get_window_extent()
    key, title = figure.legends[0].get_window_extent(), figure._suptitle.get_window_extent()
    for box in (key, title):
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= key.y0 < key.y1 < axes.y0 < axes.y1 < title.y0 < title.y1 <= whole.y1
    assert axes.height > 1.5 * figure.dpi
