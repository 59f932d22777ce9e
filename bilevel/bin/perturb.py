"""`bilevel perturb` (stage 2): a data directory with speed-perturbed copies."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp
from bilevel.data.perturb import parse_factors, perturb_datadir


def main(argv: Sequence[str] | None) -> None:
    """Write OUT_DIR (by habit data/<set>_sp) from IN_DIR."""
    parser = Parser(prog="bilevel perturb", description=__doc__)
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory to copy")
    parser.add_argument("--out_dir", type=Path, required=True, help="data directory to write")
    parser.add_argument("--factors", default="0.9 1.0 1.1", help="speed factors; 1.0 keeps the original")
    args = parser.parse_args(argv)
    factors = parse_factors(args.factors)
    stamp = Stamp(args.out_dir / ".done" / "perturb.json", [args.in_dir], {"factors": factors})
    if stamp.fresh():
        return
    stamp.path.unlink(missing_ok=True)
    n_utts = perturb_datadir(args.in_dir, args.out_dir, factors)
    stamp.write()
    print(f"{args.out_dir}: {n_utts} utterances at speeds {args.factors}")


if __name__ == "__main__":
    run(main)
