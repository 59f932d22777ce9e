"""Trainings with several objectives in several languages, as the stages of st.sh leave them."""

import json
import math
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bilevel.bin import report
from bilevel.report.conflict import _RANGE, _UNKNOWN, _heat, conflict_table, conflicts, pair_plot, step_plot
from bilevel.report.objectives import level_table, levels_of, objective_plots, objectives_of, weight_table
from bilevel.report.picture import picture
from bilevel.report.runs import methods_of, read_runs
from bilevel.report.summary import against_baseline, averages, summarise
from bilevel.report.tables import overview_tables
from bilevel.report.worst import worst_utterances
from bilevel.scoring import bleu, wer

OBJECTIVES = ("asr_en", "asr_fr", "asr_zh", "st_fr_en", "st_zh_en", "st_en_fr", "ssl")
# Method -> its levels, and how many words go wrong.
METHODS = {
    "sum": ({"all": OBJECTIVES}, 0.5),
    "vm_asr": ({"recognition": OBJECTIVES[:3], "translation": OBJECTIVES[3:6], "speech": OBJECTIVES[6:]}, 0.2),
}
LAYERS = ("encoder.embed", *(f"encoder.blocks.{i}" for i in range(4)), "encoder.norm")
N_EPOCHS, N_UTTS = 6, 12


def pairs(objectives: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs, in the order of the monitor."""
    return [(a, b) for i, a in enumerate(objectives) for b in objectives[i + 1 :]]


def epoch_rows(levels: dict[str, Sequence[str]], seed: int) -> list[dict]:
    """Rows of train.jsonl: the weight of the m-th of M objectives of a level is eta 2 m / (M (M + 1)), its norm 2."""
    rows = []
    for epoch in range(1, N_EPOCHS + 1):
        row: dict[str, float] = {"epoch": epoch, "update": 50 * epoch, "lr": 1e-3, "passes": 7.0}
        for place, (level, names) in enumerate(levels.items()):
            eta = 1.0 if place == 0 else 0.25 * epoch
            row[f"scale_{level}"] = eta
            if len(names) > 1:
                row[f"cosine_{level}"] = 0.01 * (epoch - 4) * (seed + 1)
            for m, name in enumerate(names, 1):
                weight = eta * 2 * m / (len(names) * (len(names) + 1))
                row |= {f"weight_{name}": weight, f"grad_norm_{name}": 2.0, f"contribution_{name}": 2 * weight}
                row |= {f"loss_{name}": 3 * math.exp(-epoch / m) + seed, f"mix_{name}": 1 / len(OBJECTIVES)}
                row[f"valid_loss_{name}"] = row[f"loss_{name}"] + 0.1
        rows.append(row)
    return rows


def conflict(objectives: Sequence[str], seed: int) -> dict:
    """Two records: cosine of pair p in layer l is 0.02 (p - 4 l) in the first, plus 0.1 (seed + 1) in the second."""
    both, places, shifts = pairs(objectives), range(len(LAYERS)), (0, 0.1 * (seed + 1))
    cosines = [[[0.02 * (p - 4 * i) + shift for p in range(len(both))] for i in places] for shift in shifts]
    for record in cosines:
        record[0][-1] = None  # never found together in the first layer
    records = [{"step": 100 * n, "cosine": cosine} for n, cosine in enumerate(cosines, 1)]
    return {"objectives": objectives, "pairs": both, "layers": LAYERS, "records": records}


def decode(folder: Path, objective: str, part: str, wrong: float, seed: int) -> list[dict]:
    """Texts and scores of one decoding, and what result.json says of them."""
    kind, source, *_ = objective.split("_")
    name, words = f"{source}_{part}", "猫狗鸟鱼" if source == "zh" and kind == "asr" else "abcdefgh"
    glue = "" if words[0] == "猫" else " "
    rng = random.Random(f"{objective} {part}")
    refs = {f"{name}-{i:02d}": rng.choices(words, k=rng.randint(5, 9)) for i in range(N_UTTS)}
    rng = random.Random(f"{folder} {objective} {part} {seed}")
    hyps = {key: ["x" if rng.random() < wrong else word for word in ref] for key, ref in refs.items()}
    refs, hyps = ({key: glue.join(text) for key, text in table.items()} for table in (refs, hyps))
    place = folder / f"decode_beam_{objective}" / name
    place.mkdir(parents=True)
    for file, table in (("ref", refs), ("text", hyps)):
        (place / file).write_text("".join(f"{k} {v}\n" for k, v in table.items()), encoding="utf-8")
    score, metrics = (wer.score, ("wer", "cer")) if kind == "asr" else (bleu.score, ("bleu", "chrf"))
    results = []
    for metric in metrics:
        found = score(refs, hyps, metric=metric, n_bootstrap=20)
        found.write(place / f"score_{metric}.json")
        facts = {key: getattr(found, key) for key in ("value", "low", "high", "n_utts", "signature")}
        results.append({"set": name, "metric": metric} | facts)
    return results


def fabricate(exp_dir: Path, n_seeds: int = 2) -> Path:
    """Write the folders; methods are those of METHODS."""
    for method, (levels, wrong) in METHODS.items():
        for seed in range(n_seeds):
            folder = exp_dir / f"{method}_seed{seed}"
            results = []
            for objective in OBJECTIVES[:-1]:
                for part in ("dev", "test"):
                    results += decode(folder, objective, part, wrong, seed)
            record = {"method": method, "corpus": "talks", "seed": seed, "params": 1000, "results": results,
                      "cost": {"passes": 2100 + 2 * seed}, "config_sha256": "0", "commit": "abc"}  # fmt: skip
            (folder / "result.json").write_text(json.dumps(record))
            rows = epoch_rows(levels, seed)
            (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "conflict.json").write_text(json.dumps(conflict(OBJECTIVES, seed)))
            (folder / "levels.json").write_text(json.dumps({name: list(own) for name, own in levels.items()}))
    return exp_dir


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("many"))


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "exp")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rows(table):
    return [{name: cell.text for name, cell in zip(table.header, row, strict=True)} for row in table.rows]


def test_levels_are_those_of_the_training(copy):
    run = next(run for run in read_runs(copy) if run.method == "vm_asr")
    assert sorted(objectives_of(run)) == sorted(OBJECTIVES)
    assert levels_of(run) == {name: list(own) for name, own in METHODS["vm_asr"][0].items()}
    for folder in copy.iterdir():  # one of them was never trained, others are in no level
        (folder / "levels.json").write_text(json.dumps({"first": [*OBJECTIVES[:3], "asr_xx"], "second": ["ssl"]}))
    run = next(run for run in read_runs(copy) if run.method == "vm_asr")
    left = [name for name in OBJECTIVES[3:] if name != "ssl"]
    assert levels_of(run) == {"first": list(OBJECTIVES[:3]), "second": ["ssl"], "": left}


def test_without_a_record_one_level_has_all_objectives_and_of_several_nobody_knows(copy):
    for file in copy.glob("*/levels.json"):
        file.unlink()
    by_method = {run.method: levels_of(run) for run in read_runs(copy)}
    assert by_method["sum"] == {"all": list(OBJECTIVES)}
    assert by_method["vm_asr"] == {"recognition": [], "translation": [], "speech": [], "": list(OBJECTIVES)}
    assert {row["Level"] for row in rows(weight_table(read_runs(copy)))} == {"all", "\u2013"}


def test_a_level_has_its_own_cosine_and_scale(made):
    found = {(row["Method"], row["Level"]): row for row in rows(level_table(read_runs(made)))}
    assert list(found) == [("sum", "all"), *(("vm_asr", name) for name in ("recognition", "translation", "speech"))]
    row = found["vm_asr", "translation"]
    assert row["Cosine, end"] == "0.030 (0.020 \u2013 0.040)"
    assert row["Cosine, mean"] == "\u22120.007 (\u22120.010 \u2013 \u22120.005)"
    assert row["Below 0, %"] == "50"
    assert row["Scale \u03b7"] == "1.50"
    assert row["Objectives"] == "st_fr_en, st_zh_en, st_en_fr"
    assert found["vm_asr", "speech"]["Cosine, end"] == "\u2013"
    assert found["sum", "all"]["Passes"] == "2,101"
    assert level_table(read_runs(made)).note.startswith("Corpus: talks. Runs: 2.")


def test_weights_and_shares_are_those_of_the_last_epoch(made):
    table = weight_table(read_runs(made))
    found = {(row["Method"], row["Objective"]): row for row in rows(table)}
    assert len(found) == 2 * len(OBJECTIVES)
    assert found["vm_asr", "asr_zh"]["Weight"] == "0.500"
    assert found["vm_asr", "st_fr_en"]["Weight"] == "0.250"
    assert {row["Share of audio %"] for row in found.values()} == {"14"}
    column = table.header.index("Share of step %")
    for method, (_, _) in METHODS.items():
        assert sum(row[column].order for row in table.rows if row[0].text == method) == pytest.approx(100)
    third = 100 * 0.5 / (1 + 1.5 + 1.5)
    assert found["vm_asr", "asr_zh"]["Share of step %"] == f"{third:.0f}"


def test_an_objective_that_rests_has_no_weight_but_its_share_of_the_audio(copy):
    for file in copy.glob("sum_seed*/train.jsonl"):
        epochs = [json.loads(line) for line in file.read_text().splitlines()]
        last = [{key: v for key, v in row.items() if not key.endswith("_ssl")} for row in epochs[3:]]
        file.write_text("".join(json.dumps(row) + "\n" for row in [*epochs[:3], *last]))
    (row,) = [r for r in rows(weight_table(read_runs(copy))) if (r["Method"], r["Objective"]) == ("sum", "ssl")]
    assert (row["Weight"], row["Share of step %"]) == ("\u2013", "\u2013")
    assert row["Share of audio %"] == f"{100 / 7 / 2:.0f}"


def test_curves_are_weights_by_method_cosines_and_moving_scales_by_level_losses_by_objective(made, exp_dir):
    runs = read_runs(made)
    titles = [plot.title for plot in objective_plots(runs, methods_of(runs))]
    assert titles[:2] == ["Weights of objectives: sum \u00b7 talks", "Weights of objectives: vm_asr \u00b7 talks"]
    levels = [f"Cosine in level {name}" for name in ("all", "recognition", "translation")]
    levels += [f"Scale of level {name}" for name in ("translation", "speech")]
    losses = [f"Loss of {name}" for name in objectives_of(runs[0])]
    assert titles[2:] == [f"{title} \u00b7 talks" for title in (*levels, *losses)]
    single = read_runs(exp_dir)
    assert objective_plots(single, methods_of(single)) == []
    assert level_table(single).rows == weight_table(single).rows == conflict_table(single).rows == ()


def expected(layer, pair):
    """Mean of both records of both seeds."""
    return 0.02 * (pair - 4 * layer) + (0 + 0 + 0.1 + 0.2) / 4


def test_conflict_is_the_mean_over_training_and_seeds_and_unknown_stays_unknown(copy):
    c, other = conflicts(read_runs(copy))
    assert (c.method, other.method, c.n_runs, c.steps) == ("sum", "vm_asr", 2, (100, 200))
    assert c.layers == ("embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "norm")
    wanted = np.array([[expected(i, p) for p in range(21)] for i in range(6)])
    wanted[0, -1] = np.nan
    np.testing.assert_allclose(c.by_pair, wanted)
    np.testing.assert_allclose(c.by_step[1:], [[0.02 * (10 - 4 * i), 0.02 * (10 - 4 * i) + 0.15] for i in range(1, 6)])
    assert c.least == (pytest.approx(expected(5, 0)), "asr_en \u00b7 asr_fr", "norm")

    file = copy / "sum_seed1" / "conflict.json"
    facts = json.loads(file.read_text())
    keep = facts["objectives"][:3]
    places = [n for n, pair in enumerate(facts["pairs"]) if set(pair) <= set(keep)]
    records = [{"step": r["step"], "cosine": [[row[n] for n in places] for row in r["cosine"]]}
               for r in facts["records"]]  # fmt: skip
    edit(file, objectives=keep, pairs=[facts["pairs"][n] for n in places], records=records[:1])
    c, _ = conflicts(read_runs(copy))
    assert c.by_pair[2, 0] == pytest.approx(0.02 * (0 - 8) + 0.1 / 3), "a seed that stopped earlier counts what it has"
    assert c.by_pair[2, 20] == pytest.approx(0.02 * (20 - 8) + 0.1 / 2), "a pair that one seed lacks"
    edit(file, records=[])
    assert conflicts(read_runs(copy))[0].n_runs == 1


def test_conflict_table_counts_pairs_and_layers_below_zero(made):
    row = rows(conflict_table(read_runs(made)))[0]
    means = np.array([[expected(i, p) for p in range(21)] for i in range(6)])
    assert row["Pairs below 0"] == f"{(means.mean(0) < 0).sum()} of 21"
    assert row["Layers below 0"] == f"{(means.mean(1) < 0).sum()} of 6"
    assert 0 < (means.mean(0) < 0).sum() < 21
    assert 0 < (means.mean(1) < 0).sum() < 6
    assert row["Least cosine"] == f"\u2212{-expected(5, 0):.3f}"
    assert (row["Its pair"], row["Its layer"]) == ("asr_en \u00b7 asr_fr", "norm")


def test_cosines_are_corrected_by_the_shares_of_signal(copy):
    runs = read_runs(copy)
    assert {row["Signal %"] for row in rows(conflict_table(runs))} == {"\u2013"}
    for seed, share in ((0, 0.1), (1, 0.3)):
        file = copy / f"sum_seed{seed}" / "conflict.json"
        facts = json.loads(file.read_text())
        shares = [[share, 0.8, -share, None, *[None] * (len(OBJECTIVES) - 4)]] * len(LAYERS)
        edit(file, records=[r | {"signal_share": shares} for r in facts["records"]])
    runs = read_runs(copy)
    c = conflicts(runs)[0]
    first_pair = c.by_pair[:, 0] / (0.2 * 0.8) ** 0.5
    np.testing.assert_allclose(c.without_noise[:, 0], first_pair)
    assert np.isnan(c.without_noise[:, 1:]).all(), "a share below zero, or unknown"
    first, second = rows(conflict_table(runs))
    assert first["Corrected mean"] == f"{first_pair.mean():.2f}".replace("-", "\u2212")
    assert first["Corrected least"] == f"{first_pair.min():.2f}, asr_en \u00b7 asr_fr".replace("-", "\u2212")
    assert second["Signal %"] == "\u2013"
    assert "Conflict without noise" in picture(runs, summarise(runs), "corrected conflict sum")
    with pytest.raises(ValueError, match=r"expected one of .*corrected conflict sum"):
        picture(runs, summarise(runs), "corrected conflict vm_asr")
    edit(file, records=facts["records"])
    c = conflicts(read_runs(copy))[0]
    of_the_first = c.cosines[0, :, :, 0].mean(0) / (0.1 * 0.8) ** 0.5
    np.testing.assert_allclose(c.without_noise[:, 0], of_the_first, err_msg="cosines of a run without shares count not")


def test_map_has_symmetric_colours_numbers_where_known_and_grey_elsewhere():
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    _heat(axes, np.array([[-0.25, 0.25, np.nan], [-0.001, 0.9, -0.9]]), ["front", "back"], numbers=True)
    (image,) = axes.images
    assert image.get_clim() == (-_RANGE, _RANGE)
    assert tuple(image.to_rgba(np.ma.masked_invalid([np.nan]))[0]) == pytest.approx(to_rgba(_UNKNOWN), abs=0.01)
    assert [t.get_text() for t in axes.texts] == ["\u22120.25", "0.25", "\u2013", "0.00", "0.90", "\u22120.90"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["front", "back"]
    assert axes.yaxis_inverted(), "the front is above"


def test_maps_of_many_pairs_are_wide_and_say_the_worst(copy):
    c = conflicts(read_runs(copy))[0]
    plot = pair_plot(c)
    assert plot.wide
    assert f"least \u2212{-expected(5, 0):.2f}, asr_en \u00b7 asr_fr in norm" in plot.alt
    assert "over 200 steps" in step_plot(c).alt
    for file in copy.glob("*/conflict.json"):
        facts = conflict(OBJECTIVES[:2], 0)
        facts["records"] = [{"step": 7, "cosine": [[-0.5]] * len(LAYERS)}]
        file.write_text(json.dumps(facts))
    c = conflicts(read_runs(copy))[0]
    assert not pair_plot(c).wide
    assert "6 of 6 cells below 0" in pair_plot(c).alt


def test_picture_of_a_conflict(made):
    runs = read_runs(made)
    assert picture(runs, summarise(runs), "conflict vm_asr") == pair_plot(conflicts(runs)[1]).svg
    with pytest.raises(ValueError, match=r"expected one of .*fr_test to en BLEU.*, conflict sum, conflict vm_asr"):
        picture(runs, summarise(runs), "conflict bljust")


def test_files_that_are_not_as_they_should_be_are_named(copy):
    file = copy / "sum_seed0" / "conflict.json"
    good = json.loads(file.read_text())
    for changes, match in (
        ({"records": [{"step": 1}]}, r"conflict\.json: records\[0\]: lacks cosine"),
        ({"layers": ["a"]}, r"conflict\.json: records\[0\]: expected 1 layers of 21 pairs each"),
    ):
        file.write_text(json.dumps(good | changes))
        with pytest.raises(ValueError, match=match):
            conflicts(read_runs(copy))
    (copy / "sum_seed0" / "levels.json").write_text("{")
    with pytest.raises(ValueError, match=r"sum_seed0/levels\.json: not JSON"):
        level_table(read_runs(copy))


def test_languages_have_a_mean_for_each_metric_whatever_decoded_them(made):
    runs = read_runs(made)
    summaries = summarise(runs)
    assert {s.key[3] for s in summaries} == {"decode_beam"}
    tests = {s.key[1] for s in summaries if "test" in s.key[1]}
    translations = {"fr_test to en", "zh_test to en", "en_test to fr"}
    assert tests == {"en_test", "fr_test", "zh_test"} | translations
    for s in averages(summaries):
        kind, part = ("st" if s.key[2] in ("bleu", "chrf") else "asr"), s.key[1].split()[3]
        assert s.key[1] == f"mean of 3 {part} sets"
        for seed, value in zip(s.seeds, s.values, strict=True):
            files = (made / f"{s.method}_seed{seed}").glob(f"decode_beam_{kind}_*/*_{part}/score_{s.key[2]}.json")
            own = [json.loads(file.read_text())["value"] for file in files]
            assert len(own) == 3
            assert value == pytest.approx(sum(own) / 3)
    assert len(averages(summaries)) == 2 * 2 * 4
    shown = dict(overview_tables(summaries))
    assert list(shown) == ["WER %", "CER %", "BLEU", "chrF2"]
    assert set(shown["BLEU"].header) == {"Method", *translations, "mean of 3 test sets"}
    for table in shown.values():
        assert [[cell.best for cell in row[1:]] for row in table.rows] == [[False] * 4, [True] * 4]
    verdicts = {(b.key[1], b.key[2]): result.verdict for _, b, result in against_baseline(summaries)}
    assert len(verdicts) == 24
    assert set(verdicts.values()) <= {"better", "not significant"}
    assert verdicts["fr_test to en", "bleu"] == "better"


def test_decodings_of_equal_value_keep_their_own_folders(copy):
    folder = copy / "sum_seed0"
    zero = bleu.score({"a": "b c d e"}, {"a": "x"}, n_bootstrap=2)
    for place in ("decode_beam_st_en_fr", "decode_beam_st_en_zh"):
        zero.write(folder / place / "en_test" / "score_bleu.json")
    entry = {key: getattr(zero, key) for key in ("value", "low", "high", "n_utts", "signature")}
    edit(folder / "result.json", results=[{"set": "en_test", "metric": "bleu"} | entry] * 2)
    (run,) = [run for run in read_runs(copy) if run.tag == "sum_seed0"]
    assert [d.decode for d in run.decodings] == ["decode_beam_st_en_fr", "decode_beam_st_en_zh"]


def test_worst_utterances_are_aligned_by_character_where_words_have_no_boundaries(made):
    worst = worst_utterances(summarise(read_runs(made)), 5)
    assert {name for _, name, _ in worst} == {
        f"{lang}_{part}" for lang in ("en", "fr", "zh") for part in ("dev", "test")
    }
    for (_, name, _), utterances in worst.items():
        for u in utterances:
            assert len(u.ref.replace(" ", "")) >= 5
            n_tokens = len(u.ref) if name.startswith("zh") else len(u.ref.split())
            for ops in u.alignments.values():
                assert sum(op.kind != "insertion" for op in ops) == n_tokens


def test_both_reports_of_many_objectives(made, tmp_path):
    report.main([str(made), f"--out={tmp_path}"])
    text, html = ((tmp_path / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "report.html"))
    headings = re.findall(r"^## (.+)", text, re.MULTILINE)
    expected = [f"Overview: {metric}" for metric in ("WER %", "CER %", "BLEU", "chrF2")]
    expected += ["Methods", "Significance", "Objectives", "Weights of the objectives", "Conflicts between objectives"]
    assert headings[1:10] == expected
    assert "<h1>Speech recognition and translation results</h1>" in html
    section = html.split('<section id="objectives">')[1].split("</section>")[0]
    assert section.count("<img ") == 4 + 14
    assert section.count('<img class="row" ') == 2
    assert html.count('<details class="utt"') == 6 * 8, "eight of each of six sets"
    assert html.count('class="wide long"') == 1, "the table of all sets"
