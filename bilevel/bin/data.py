"""Stage 1: write Kaldi-style data directories from a corpus."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run, str2bool
from bilevel.corpora import names
from bilevel.corpora.prepare import Options, Pool, prepare


def get_parser() -> Parser:
    """Options of `bilevel data`."""
    parser = Parser(prog="bilevel data", description=__doc__)
    parser.add_argument("--corpus", required=True, help=f"one of {', '.join(names())}")
    parser.add_argument("--src", type=Path, help="folder of the corpus; without it the corpus is downloaded")
    parser.add_argument("--sets", nargs="*", default=["train", "dev", "test"], help="sets to write")
    parser.add_argument("--unlabelled_sets", nargs="*", default=[], help="those of the sets to write without text")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where data directories go")
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"), help="where downloads go")
    parser.add_argument(
        "--allow_partial", type=str2bool, nargs="?", const=True, default=False, help="go on with an incomplete corpus"
    )
    parser.add_argument("--pool_set", help="set to divide into a labelled share and an unlabelled rest")
    parser.add_argument("--labelled_share", type=float, help="labelled share of the pool, by duration, in (0, 1]")
    parser.add_argument("--labelled_set", help="name of the labelled share")
    parser.add_argument("--unlabelled_set", help="name of the rest, written without text")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--case", choices=("lower", "upper", "keep"), default="lower", help="case of the text")
    parser.add_argument("--punctuation", choices=("remove", "keep"), default="remove", help="marks in the text")
    return parser


def main(argv: Sequence[str] | None) -> None:
    """Write the data directories."""
    args = get_parser().parse_args(argv)
    pool = None
    parts = (args.pool_set, args.labelled_share, args.labelled_set, args.unlabelled_set)
    if any(part is not None for part in parts):
        if any(part is None for part in parts):
            raise ValueError("--pool_set, --labelled_share, --labelled_set and --unlabelled_set go together")
        pool = Pool(*parts, seed=args.seed)
    prepare(
        args.corpus,
        args.src,
        args.sets,
        args.data_dir,
        download_dir=args.download_dir,
        unlabelled_sets=args.unlabelled_sets,
        pool=pool,
        options=Options(args.case, args.punctuation, args.allow_partial),
    )


if __name__ == "__main__":
    run(main)
