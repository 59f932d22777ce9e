"""`bilevel tokens` (stage 5): token list, and subword model, from training text."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp, atomic_path, write_lines
from bilevel.data.tables import read_lines, read_scp
from bilevel.data.tokens import bpe_tokens, char_tokens, word_tokens


def main(argv: Sequence[str] | None) -> None:
    """Write OUT_DIR/tokens.txt and, for bpe, OUT_DIR/bpe.model."""
    parser = Parser(prog="bilevel tokens", description=__doc__)
    parser.add_argument("--text", nargs="+", type=Path, required=True, help="Kaldi text files of the training sets")
    parser.add_argument("--out_dir", type=Path, required=True, help="by habit dump/token_list/<type>")
    parser.add_argument("--token_type", default="char", choices=("char", "bpe", "word"), help="kind of units")
    parser.add_argument("--nbpe", type=int, default=30, help="size of the bpe token list, special units included")
    parser.add_argument("--bpe_mode", default="unigram", choices=("unigram", "bpe"), help="sentencepiece model type")
    parser.add_argument("--nlsyms", type=Path, help="file of non-linguistic symbols, one a line")
    args = parser.parse_args(argv)
    inputs = [*args.text, *([args.nlsyms] if args.nlsyms else [])]
    config = {"token_type": args.token_type, "nbpe": args.nbpe, "bpe_mode": args.bpe_mode}
    stamp = Stamp(args.out_dir / ".done" / "tokens.json", inputs, config)
    if (args.out_dir / "tokens.txt").exists() and stamp.fresh():
        return
    stamp.path.unlink(missing_ok=True)
    texts = [text for path in args.text for text in read_scp(path).values()]
    nlsyms = [line for line in read_lines(args.nlsyms) if line] if args.nlsyms else []
    if args.token_type == "char":
        tokens = char_tokens(texts, nlsyms)
    elif args.token_type == "word":
        tokens = word_tokens(texts)
    else:
        tokens, model = bpe_tokens(texts, args.nbpe, mode=args.bpe_mode, nlsyms=nlsyms)
        with atomic_path(args.out_dir / "bpe.model") as temporary:
            temporary.write_bytes(model)
    write_lines(args.out_dir / "tokens.txt", tokens)
    stamp.write()
    print(f"{args.out_dir / 'tokens.txt'}: {len(tokens)} {args.token_type} units")


if __name__ == "__main__":
    run(main)
