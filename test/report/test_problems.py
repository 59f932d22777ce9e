"""Reports of runs that are not speech recognition."""

import json

import pytest

from bilevel.bin import report
from bilevel.report.problems import problem_tables, trace_plots
from bilevel.report.runs import read_runs

UTILITY = {("blocc", "gamma 2"): 1.1, ("blocc", "gamma 10"): 1.72, ("lv_hba", "-"): 1.5}


@pytest.fixture
def exp_dir(tmp_path):
    for (method, setting), utility in UTILITY.items():
        for seed in (0, 1):
            folder = tmp_path / f"{method}_{setting.replace(' ', '')}_seed{seed}"
            folder.mkdir()
            shifted = utility + (0.01 if seed else -0.01)
            values = {"utility_yg": shifted, "utility_yF": shifted + 0.3, "violation_yg": 1e-4 * (1 + seed)}
            entry = {"set": setting, "low": None, "high": None, "n_utts": 6, "signature": "exact"}
            record = {
                "method": method,
                "corpus": "transport_three_node",
                "seed": seed,
                "params": 6,
                "results": [entry | {"metric": metric, "value": value} for metric, value in values.items()],
                "cost": {"updates": 20, "passes": 800, "wall_sec": 2.0 + seed},
                "config_sha256": "0" * 64,
                "commit": "abc",
            }
            (folder / "result.json").write_text(json.dumps(record))
            rows = [
                {"step": i, "seconds": 0.1 * i, "upper_yg": -utility + 1 / (i + 1), "upper_yF": None} for i in range(9)
            ]
            (folder / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_row_holds_mean_and_deviation_over_seeds_of_every_metric(exp_dir):
    [(corpus, table)] = problem_tables(read_runs(exp_dir))
    assert corpus == "transport_three_node"
    assert table.header == ("Set", "Method", "Utility y_g", "Utility y_F", "Violation y_g", "Seconds", "Seeds")
    rows = {(row[1].text, row[0].text): row for row in table.rows}
    assert list(rows) == [("lv_hba", "-"), ("blocc", "gamma 2"), ("blocc", "gamma 10")]  # 2 before 10
    assert rows["blocc", "gamma 10"][2].text == "1.720 \u00b1 0.014"  # deviation of 1.71 and 1.73
    assert rows["blocc", "gamma 2"][4].text == "2e\u221204 \u00b1 7e\u221205"
    assert [row[5].text for row in table.rows] == ["2.500 \u00b1 0.707"] * 3
    assert [row[2].best for row in table.rows] == [False, False, True]
    assert not any(row[3].best for row in table.rows)  # y_F is never what a user gets


def test_each_setting_has_a_curve_and_a_quantity_that_was_not_logged_has_none(exp_dir):
    plots = trace_plots(read_runs(exp_dir))
    assert [plot.title.rpartition(", ")[2] for plot in plots] == ["-", "gamma 2", "gamma 10"]
    assert all(plot.svg.startswith("<?xml") for plot in plots)


def test_both_reports_hold_them_and_no_error_rates(exp_dir):
    report.main([str(exp_dir)])
    text, html = ((exp_dir / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    assert "## transport_three_node\n" in text
    assert "**1.720 \u00b1 0.014**" in text
    assert "## Methods" not in text
    assert "<h3>transport_three_node</h3>" in html
    assert html.count("<img ") == 3
