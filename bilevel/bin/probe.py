"""`bilevel probe` (stage 8 of ssl.sh): what the labels of a pre-training say about the characters that are spoken."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run


def main(argv: Sequence[str] | None) -> None:
    """Print a table and write EXP_DIR/probe.json."""
    parser = Parser(prog="bilevel probe", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True, help="the pre-training")
    parser.add_argument("--align_exp", type=Path, required=True, help="recognition experiment whose CTC aligns")
    parser.add_argument("--align_model", default="valid.cer_ctc.ave.pth", help="weights in --align_exp")
    parser.add_argument("--dir", type=Path, required=True, help="dump directory with transcripts")
    parser.add_argument("--targets_dir", type=Path, help="labels of bilevel kmeans, to judge them as well")
    parser.add_argument("--ngpu", type=int, default=0)
    args = parser.parse_args(argv)
    from bilevel.espnet.probe import probe

    targets = args.targets_dir / args.dir.name if args.targets_dir else None
    probe(args.exp_dir, args.align_exp, args.align_model, args.dir, targets, "cuda" if args.ngpu else "cpu")


if __name__ == "__main__":
    run(main)
