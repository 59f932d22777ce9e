"""`bilevel report EXP_DIR`: RESULTS.md and report.html of all runs below a folder."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import write_text
from bilevel.report.markdown import results_md
from bilevel.report.page import page
from bilevel.report.runs import read_runs
from bilevel.report.summary import summarise


def main(argv: Sequence[str] | None = None) -> None:
    """Read every result.json below EXP_DIR and write both reports."""
    parser = Parser(prog="bilevel report", description="RESULTS.md and one self-contained report.html.")
    parser.add_argument("exp_dir", type=Path, help="folder with runs; each has a result.json")
    parser.add_argument("--out", type=Path, help="where to write; EXP_DIR when not given")
    parser.add_argument("--title", default="Speech recognition results", help="heading of the page")
    args = parser.parse_args(argv)
    runs = read_runs(args.exp_dir)
    summaries = summarise(runs)
    out = args.out or args.exp_dir
    for name, text in (("RESULTS.md", results_md(runs, summaries)), ("report.html", page(runs, summaries, args.title))):
        write_text(out / name, text)
        print(f"wrote {out / name}")


if __name__ == "__main__":
    run(main)
