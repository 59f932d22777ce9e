"""The two reports as files: contents, escaping, and the page in a browser."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from bilevel.bin import report
from bilevel.scoring.result import Score

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=20000",
    "--dump-dom",
]


@pytest.fixture(scope="module")
def out(exp_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.main([str(exp_dir), f"--out={folder}", "--title=Trial <1> & more"])
    return folder


@pytest.fixture(scope="module")
def html(out):
    return (out / "report.html").read_text(encoding="utf-8")


def test_results_md_has_espnet_tables_of_every_run(out, exp_dir):
    text = (out / "RESULTS.md").read_text(encoding="utf-8")
    for name in ("date", "python version", "pytorch version", "espnet version", "commit"):
        assert re.search(rf"^- {name}: `.+`$", text, re.MULTILINE)
    assert "\n- commit: `0123abc, 456def`\n" in text  # one of them made some results alone
    assert text.count("|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|") == 4 * 3 * 2
    section = text.split("## asr_mini_bljust_seed1\n")[1].split("## asr")[0]
    row = next(line for line in section.splitlines() if line.startswith("|decode_ctc_greedy/test|"))
    total = Score.read(exp_dir / "asr_mini_bljust_seed1/decode_ctc_greedy/test/score_wer.json").total
    name, *figures = row.strip("|").split("|")
    expected = [
        total.n_utts,
        total.n_ref,
        100 * total.correct / total.n_ref,
        100 * total.substitutions / total.n_ref,
        100 * total.deletions / total.n_ref,
        100 * total.insertions / total.n_ref,
        100 * total.error_rate,
        100 * total.sentence_error_rate,
    ]
    assert [float(figure) for figure in figures] == pytest.approx(expected, abs=0.0501)


def test_markdown_rows_have_as_many_cells_as_the_header(out):
    blocks = re.findall(r"(?:^\|.*\|\n)+", (out / "RESULTS.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks) == 3 + 24
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_page_needs_nothing_from_outside(html):
    sources = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"@import|url\((?!data:)|<link(?! rel=\"icon\")", html)


def test_text_is_escaped(html):
    assert "Trial &lt;1&gt; &amp; more" in html
    assert "&lt;odd&gt;" in html
    assert "<odd>" not in html


def test_tags_are_balanced(html):
    class Checker(HTMLParser):
        open: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "link", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(html)
    assert checker.open == []


def test_every_method_has_results_and_alignments(html):
    for method in ("supervised", "pretrain_finetune", "weighted_sum", "bljust"):
        assert f'<td class="txt">{method}</td>' in html
        assert f'<div class="who">{method}<small>' in html
    for kind in ("sub", "del", "ins"):
        assert f'<span class="op {kind}">' in html
    assert html.count("<img") == 2 + 7, "one plot for each set, one for each logged quantity"


def test_page_of_bare_results(exp_dir, tmp_path):
    """No score files, no curves, another metric, no cost: the page says less and does not fail."""
    record = json.loads((exp_dir / "asr_mini_bljust_seed0" / "result.json").read_text())
    entry = record["results"][0] | {"metric": "bleu", "value": 21.4, "low": 20.0, "high": 22.9}
    (tmp_path / "run").mkdir()
    record |= {"results": [entry], "cost": {"updates": None}, "params": None}
    (tmp_path / "run" / "result.json").write_text(json.dumps(record))
    report.main([str(tmp_path)])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "21.40" in text
    assert "Worst utterances" not in text
    assert "Significance" not in text


def test_page_in_a_browser(out, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        reason = f"none of {', '.join(BROWSERS)} is installed; Debian: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    page = f"{(out / 'report.html').as_uri()}#selftest"
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path}", "--window-size=1200,3000", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-selftest="([^"]*)"', done.stdout)
    assert found, "the self-test did not run"
    seen = json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert seen["problems"] == []
    assert len(seen["sorts"]) > 40
    assert all(seen["sorts"])
    assert len(seen["folds"]) == 24
    assert all(seen["folds"])
    assert len(seen["images"]) == 9
    assert all(seen["images"])
    assert not seen["overflow"], "the page is wider than 1200 px"


def test_picture_is_the_plot_of_the_set_asked_for_and_results_name_the_command(exp_dir, tmp_path):
    made_by = ["--made_by", "run.sh --x 1", "--picture", str(tmp_path / "a.svg")]
    report.main([str(exp_dir), f"--out={tmp_path}", *made_by, "--picture_of", "test CER"])
    report.main([str(exp_dir), f"--out={tmp_path}", "--picture", str(tmp_path / "b.svg")])
    first, second = ((tmp_path / name).read_text(encoding="utf-8") for name in ("a.svg", "b.svg"))
    assert first != second
    assert all(text.rstrip().endswith("</svg>") for text in (first, second))
    assert "- command:" not in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected one of .*test CER, test WER"):
        report.main([str(exp_dir), f"--out={tmp_path}", "--picture", "x.svg", "--picture_of", "nowhere WER"])
