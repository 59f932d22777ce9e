"""`bilevel compare A B`: is B better than A on the same references?"""

import json
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import write_text
from bilevel.scoring.result import METRICS, Score
from bilevel.scoring.significance import compare


def main(argv: Sequence[str] | None = None) -> None:
    """Paired bootstrap of two score files, or of all score files that two experiment folders share."""
    parser = Parser(prog="bilevel compare", description="Paired bootstrap significance of two systems, B minus A.")
    parser.add_argument("a", type=Path, help="score file (bilevel score --json) or experiment folder")
    parser.add_argument("b", type=Path, help="the same of the other system")
    parser.add_argument("--metric", choices=tuple(METRICS), default="wer", help="which score files of the folders")
    parser.add_argument("--json", type=Path, help="write the comparisons")
    parser.add_argument("--resample", choices=("utterance", "speaker"), default="utterance")
    parser.add_argument("--n_bootstrap", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    options = {"resample": args.resample, "n_bootstrap": args.n_bootstrap, "seed": args.seed}
    pairs = _pairs(args.a, args.b, args.metric)
    results = {name: compare(Score.read(a), Score.read(b), **options) for name, (a, b) in pairs.items()}
    width = max(8, *map(len, results))
    print(f"{'':{width}}  metric        A        B    B - A   95 % interval of B - A        p   utts   B is")
    for name, c in results.items():
        metric = METRICS[c.metric]
        a, b, difference, low, high = (
            f"{metric.factor * value:.2f}" for value in (c.value_a, c.value_b, c.difference, c.low, c.high)
        )
        line = f"{name:{width}}  {metric.label:6}{a:>9}{b:>9}{difference:>9}   {low:>8} .. {high:>8}"
        print(f"{line}   {c.p_value:10.4f}{c.n_utts:7}   {c.verdict}")
    if args.json:
        write_text(args.json, json.dumps({name: c.to_json() for name, c in results.items()}, indent=1) + "\n")


def _pairs(a: Path, b: Path, metric: str) -> dict[str, tuple[Path, Path]]:
    """Score files to compare, by what names them."""
    for path in (a, b):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder; expected a score file or an experiment folder")
    if a.is_dir() != b.is_dir():
        raise ValueError(f"{a} and {b}: expected two score files or two experiment folders")
    if not a.is_dir():
        return {a.stem: (a, b)}
    found = [{file.relative_to(top).parent: file for file in top.rglob(f"score_{metric}.json")} for top in (a, b)]
    common = sorted(found[0].keys() & found[1].keys())
    if not common:
        raise ValueError(f"{a} and {b}: no score_{metric}.json at the same place below both; run the scoring stage")
    return {str(place): (found[0][place], found[1][place]) for place in common}


if __name__ == "__main__":
    run(main)
