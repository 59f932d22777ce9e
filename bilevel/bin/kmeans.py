"""`bilevel kmeans` (stage 5 of ssl.sh): cluster an encoder's states to frame labels."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp


def main(argv: Sequence[str] | None) -> None:
    """Write a file of labels for each set, and kmeans.json, to --out_dir."""
    parser = Parser(prog="bilevel kmeans", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True, help="pre-training whose encoder is used")
    parser.add_argument("--layer", type=int, help="after which block; default: 70 %% of the depth")
    parser.add_argument("--n_clusters", type=int, default=100)
    parser.add_argument("--fit_hours", type=float, default=10.0, help="audio of the first set to fit on")
    parser.add_argument("--dirs", type=Path, nargs="+", required=True, help="dump directories; fitted on the first")
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ngpu", type=int, default=0)
    args = parser.parse_args(argv)
    settings = {name: getattr(args, name) for name in ("layer", "n_clusters", "fit_hours", "seed")}
    stamp = Stamp(args.out_dir / ".done" / "kmeans.json", [*args.dirs, args.exp_dir / "latest.pth"], settings)
    if stamp.fresh():
        return
    from bilevel.espnet.kmeans import relabel

    device = "cuda" if args.ngpu else "cpu"
    relabel(args.exp_dir, args.layer, args.n_clusters, args.fit_hours, args.dirs, args.out_dir, args.seed, device)
    stamp.write()


if __name__ == "__main__":
    run(main)
