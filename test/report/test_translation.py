"""Reports of runs with WER and BLEU in several languages: directions, averages, and RESULTS.md."""

import json
import random
import shutil

import pytest

from bilevel.bin import report
from bilevel.report.picture import picture
from bilevel.report.plots import interval_plots
from bilevel.report.runs import methods_of, read_runs
from bilevel.report.summary import against_baseline, averages, summarise
from bilevel.report.tables import methods_table, significance_table
from bilevel.scoring import bleu, wer

METHODS = {"supervised": 0.4, "bljust": 0.15}
SETS = ("dev_de", "test_de", "test_fr")
SEEDS = (0, 1)


def _scores(name, method, seed, rate):
    rng = random.Random(name)
    refs = {f"{name}-{i:03d}": " ".join(rng.choices("abcdefghij", k=rng.randint(4, 12))) for i in range(60)}
    rng = random.Random(f"{name} {method} {seed}")
    hyps = {key: " ".join("x" if rng.random() < rate else word for word in text.split()) for key, text in refs.items()}
    return {"wer": wer.score(refs, hyps, n_bootstrap=50), "bleu": bleu.score(refs, hyps, n_bootstrap=50)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """As stage 13 writes it."""
    top = tmp_path_factory.mktemp("translation")
    for method, rate in METHODS.items():
        for seed in SEEDS:
            folder, results = top / f"{method}_seed{seed}", []
            for name in SETS:
                for metric, found in _scores(name, method, seed, rate).items():
                    found.write(folder / "decode_beam" / name / f"score_{metric}.json")
                    facts = {key: getattr(found, key) for key in ("value", "low", "high", "n_utts", "signature")}
                    results.append({"set": name, "metric": metric} | facts)
            record = {"method": method, "corpus": "talks", "seed": seed, "params": 1, "results": results, "cost": {},
                      "config_sha256": "0", "commit": "abc"}  # fmt: skip
            (folder / "result.json").write_text(json.dumps(record))
    return top


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "exp")


def rows(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_a_mean_over_languages_is_a_row_of_its_own_and_no_mean_mixes_test_and_development(made):
    runs = read_runs(made)
    summaries = summarise(runs)
    means = averages(summaries)
    assert {(s.key[1], s.key[2], s.method) for s in means} == {
        ("mean of 2 test sets", metric, method) for metric in ("wer", "bleu") for method in METHODS
    }
    for s in means:
        for seed, value in zip(s.seeds, s.values, strict=True):
            (run,) = [run for run in runs if (run.method, run.seed) == (s.method, seed)]
            own = [d.value for d in run.decodings if d.metric == s.key[2] and d.set in ("test_de", "test_fr")]
            assert value == pytest.approx(sum(own) / 2)
    shown = [row["Set"].text for row in rows(methods_table(summaries))]
    assert shown == [name for name in (*SETS, "mean of 2 test sets") for _ in range(4)]
    assert "mean of" not in str(significance_table(summaries).rows)


def test_a_run_that_lacks_a_language_has_no_mean(copy):
    for folder, kept in (("bljust_seed0", SETS[:2]), ("supervised_seed0", SETS)):
        file = copy / folder / "result.json"
        record = json.loads(file.read_text())
        record["results"] = [entry for entry in record["results"] if entry["set"] in kept]
        file.write_text(json.dumps(record))
    means = {(s.method, s.key[2]): s for s in averages(summarise(read_runs(copy)))}
    assert means["bljust", "bleu"].seeds == (1,)
    assert means["supervised", "bleu"].seeds == (0, 1)
    shutil.rmtree(copy / "bljust_seed1")
    assert {s.method for s in averages(summarise(read_runs(copy)))} == {"supervised"}


def test_best_is_the_least_error_rate_and_the_greatest_bleu(made):
    table = rows(methods_table(summarise(read_runs(made))))
    for label, best in (("WER %", min), ("BLEU", max)):
        for name in {row["Set"].text for row in table}:
            own = [row for row in table if (row["Set"].text, row["Metric"].text) == (name, label)]
            assert [row["Method"].text for row in own if row["Mean"].best] == ["bljust"]
            assert best(row["Mean"].order for row in own) == next(r["Mean"].order for r in own if r["Mean"].best)
            assert all(float(row["Mean"].text) > 10 for row in own), "per cent, and points as they are"


def test_better_goes_by_the_direction_of_the_metric(made):
    summaries = summarise(read_runs(made))
    for baseline, verdict, n_better in (("supervised", "better", "2 of 2"), ("bljust", "worse", "0 of 2")):
        table = significance_table(summaries, baseline)
        assert {row["Verdict"].text for row in rows(table)} == {verdict}
        assert {row["Seeds better"].text for row in rows(table)} == {n_better}
        assert "less is better (WER), more is better (BLEU)" in table.note
    signs = {b.key[2]: result.difference > 0 for _, b, result in against_baseline(summaries)}
    assert signs == {"wer": False, "bleu": True}
    (row,) = [r for r in rows(significance_table(summaries))
              if (r["Set"].text, r["Metric"].text) == ("test_fr", "BLEU")]  # fmt: skip
    assert float(row["Difference"].text) == pytest.approx(row["Difference"].order, abs=0.00501)


def test_each_set_has_a_plot_of_wer_and_of_bleu(made):
    runs = read_runs(made)
    plots = interval_plots(summarise(runs), methods_of(runs))
    assert [plot.alt.split(" on ")[0] for plot in plots] == ["WER", "BLEU"] * len(SETS)
    assert picture(runs, summarise(runs), "test_fr BLEU") == plots[-1].svg


def test_both_reports_hold_error_rates_and_bleu(copy):
    report.main([str(copy)])
    text, html = ((copy / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    section = text.split("## supervised_seed1\n")[1]
    table = section.split("### BLEU\n\n")[1].split("\n\n")[0].splitlines()
    assert table[0] == "|dataset|Snt|score|verbose_score|"
    found = bleu.verbose(_scores("test_fr", "supervised", 1, METHODS["supervised"])["bleu"])
    assert table[-1].startswith("|decode_beam/test_fr|60|")
    assert table[-1].endswith(f"|{found}|")
    assert "### WER" in section
    assert text.split("## Methods")[1].count("|mean of 2 test sets|") == 4
    assert text.split("## Methods")[0].count("|test_de|test_fr|mean of 2 test sets|") == 2, "WER and BLEU side by side"
    assert "BLEU|nrefs:1|" in html
    (copy / "supervised_seed0" / "decode_beam" / "dev_de" / "score_bleu.json").write_text("{}")
    with pytest.raises(ValueError, match=r"dev_de/score_bleu\.json: lacks value; run the stage"):
        report.main([str(copy)])
