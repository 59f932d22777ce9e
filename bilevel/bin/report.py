"""`bilevel report EXP_DIR`: RESULTS.md and report.html of all runs below a folder."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import write_text
from bilevel.report.markdown import results_md
from bilevel.report.page import page
from bilevel.report.picture import picture
from bilevel.report.runs import read_runs
from bilevel.report.summary import summarise
from bilevel.report.tables import significance_table
from bilevel.scoring.result import RATES


def main(argv: Sequence[str] | None = None) -> None:
    """Read every result.json below EXP_DIR and write both reports."""
    parser = Parser(prog="bilevel report", description="RESULTS.md and one self-contained report.html.")
    parser.add_argument("exp_dir", type=Path, help="folder with runs; each has a result.json")
    parser.add_argument("--out", type=Path, help="where to write; EXP_DIR when not given")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--baseline", metavar="NAME", help="method that the others are compared with; else the first")
    parser.add_argument("--made_by", help="command that made the runs, quoted in RESULTS.md")
    parser.add_argument("--picture", type=Path, help="also write one plot (SVG)")
    names = "'SET METRIC', '[corrected ]conflict METHOD' or title of curves"
    parser.add_argument("--picture_of", default="test WER", metavar="NAME", help=names)
    args = parser.parse_args(argv)
    runs = read_runs(args.exp_dir)
    summaries = summarise(runs)
    out = args.out or args.exp_dir
    translates = any(s.key[2] not in RATES for s in summaries)
    default = "Speech recognition and translation results" if translates else "Speech recognition results"
    title = args.title or (default if summaries else "Results")
    significance = significance_table(summaries, args.baseline)
    files = {
        out / "RESULTS.md": results_md(runs, summaries, significance, args.made_by),
        out / "report.html": page(runs, summaries, significance, title),
    }
    if args.picture:
        files[args.picture] = picture(runs, summaries, args.picture_of)
    for path, text in files.items():
        write_text(path, text)
        print(f"wrote {path}")


if __name__ == "__main__":
    run(main)
