"""Reading experiment folders, and the numbers that the reports are made of."""

import json
import shutil

import pytest

from bilevel.report.runs import methods_of, read_runs
from bilevel.report.summary import against_baseline, paired, summarise
from bilevel.report.tables import significance_table
from bilevel.scoring.result import Score
from bilevel.scoring.significance import compare


@pytest.fixture
def copy(exp_dir, tmp_path):
    return shutil.copytree(exp_dir, tmp_path / "exp")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_runs_are_found_and_ordered(exp_dir):
    runs = read_runs(exp_dir)
    assert methods_of(runs) == ["supervised", "pretrain_finetune", "weighted_sum", "bljust"]
    assert [run.seed for run in runs[:4]] == [0, 1, 2, 0]
    assert len(runs[0].epochs) == 30
    assert runs[0].decodings[0].decode == "decode_ctc_greedy"
    assert runs[0].decodings[0].score.value == runs[0].decodings[0].value


def test_summary_is_the_mean_over_seeds(exp_dir):
    runs = read_runs(exp_dir)
    (summary,) = [s for s in summarise(runs) if s.method == "bljust" and s.key[1:3] == ("test", "wer")]
    values = [Score.read(file).value for file in exp_dir.glob("*bljust*/decode_ctc_greedy/test/score_wer.json")]
    assert sorted(summary.values) == sorted(values)
    assert summary.mean == pytest.approx(sum(values) / 3)
    assert summary.low < summary.mean < summary.high
    assert summary.high - summary.low < max(d.high - d.low for d in summary.decodings), "three runs are less noisy"


def test_single_run_keeps_its_interval(exp_dir):
    runs = [run for run in read_runs(exp_dir) if run.seed == 1]
    for summary in summarise(runs):
        assert (summary.low, summary.high) == (summary.decodings[0].low, summary.decodings[0].high)


def test_baseline_is_supervised_and_pairs_match_by_seed(copy):
    shutil.rmtree(copy / "asr_mini_bljust_seed0")
    summaries = summarise(read_runs(copy))
    rows = against_baseline(summaries)
    assert {a.method for a, _, _ in rows} == {"supervised"}
    a, b, result = next(row for row in rows if row[1].method == "bljust" and row[1].key[2] == "wer")
    assert [seed for seed, _, _ in paired(a, b)] == [1, 2]
    assert result.n_runs == 2
    singles = [compare(x.score, y.score, n_bootstrap=10).difference for _, x, y in paired(a, b)]
    assert result.difference == pytest.approx(sum(singles) / 2)


def test_a_named_baseline_turns_the_difference_round(exp_dir):
    summaries = [s for s in summarise(read_runs(exp_dir)) if s.method in ("supervised", "bljust")]
    default = against_baseline(summaries)
    named = against_baseline(summaries, "bljust")
    assert [(a.method, b.method) for a, b, _ in named] == [("bljust", "supervised")] * len(default)
    for (_, _, forth), (_, _, back) in zip(default, named, strict=True):
        assert back.difference == pytest.approx(-forth.difference)
    table = significance_table(summaries, "bljust")
    assert "Against: bljust." in table.note
    assert {row[table.header.index("Method")].text for row in table.rows} == {"supervised"}


def test_sets_without_the_baseline_are_named_and_an_unknown_one_is_refused(exp_dir):
    every = summarise(read_runs(exp_dir))
    summaries = [s for s in every if s.method != "bljust" or s.key[1] == "test"]
    assert {b.key[1] for _, b, _ in against_baseline(summaries, "bljust")} == {"test"}
    assert "Not compared, as bljust has no run there: mini / dev." in significance_table(summaries, "bljust").note
    assert "Not compared" not in significance_table(every, "bljust").note
    there = "supervised, pretrain_finetune, weighted_sum, bljust"
    with pytest.raises(ValueError, match=f"--baseline 'bilevel': no recognition run of this method; .* {there}"):
        against_baseline(every, "bilevel")


def test_other_references_are_said_not_hidden(copy):
    for file in copy.glob("*bljust*/decode_ctc_greedy/dev/score_wer.json"):
        record = json.loads(file.read_text())
        record["utterances"]["other"] = record["utterances"].pop(next(iter(record["utterances"])))
        file.write_text(json.dumps(record))
    rows = against_baseline(summarise(read_runs(copy)))
    (reason,) = [r for _, s, r in rows if s.method == "bljust" and s.key[1:3] == ("dev", "wer")]
    assert "different references: 2 utterance ids in only one of the two" in reason


def test_runs_without_score_files_and_curves_are_fine(copy):
    for folder in copy.glob("*/decode_ctc_greedy"):
        shutil.rmtree(folder)
    for file in copy.glob("*/train.jsonl"):
        file.unlink()
    summaries = summarise(read_runs(copy))
    assert all(s.low is None for s in summaries)
    assert {r for _, _, r in against_baseline(summaries)} == {"no score files of equal seed"}


def test_half_written_last_line_is_passed_over(copy):
    file = copy / "asr_mini_bljust_seed0" / "train.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"epoch": 31, "tr')
    assert max(len(run.epochs) for run in read_runs(copy)) == 30
    file.write_text("{oops\n" + whole)
    with pytest.raises(ValueError, match=r"seed0/train\.jsonl:1: not JSON"):
        read_runs(copy)


def test_refusals_name_the_file(copy, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"none: no result\.json below"):
        read_runs(tmp_path / "none")
    file = copy / "asr_mini_bljust_seed0" / "result.json"
    good = file.read_text()
    for text, match in (("{", "not JSON"), ("[]", "expected a JSON object"), ('{"method": "x"}', "lacks corpus, seed")):
        file.write_text(text)
        with pytest.raises(ValueError, match=rf"bljust_seed0/result\.json: {match}"):
            read_runs(copy)
    file.write_text(good)
    edit(file, results=[{"set": "dev", "metric": "wer"}])
    with pytest.raises(ValueError, match=r"results\[0\]: lacks value, low, high"):
        read_runs(copy)
    stale = json.loads(good)["results"]
    stale[0]["value"] += 0.1
    edit(file, results=stale)
    with pytest.raises(ValueError, match="no score file beside it says so"):
        read_runs(copy)
