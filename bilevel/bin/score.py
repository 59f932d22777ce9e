"""`bilevel score`: error rate, BLEU or chrF of a hypothesis file."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.tables import read_scp
from bilevel.scoring import bleu, wer
from bilevel.scoring.result import METRICS, RATES
from bilevel.scoring.table import format_score

# Options that not every metric has; their defaults are the scorers' own.
_OPTIONS = {"case": tuple(METRICS), "punctuation": RATES, "tokenize": ("bleu",)}


def main(argv: Sequence[str] | None = None) -> None:
    """Score Kaldi text files; print a table, and write the score as JSON when asked."""
    parser = Parser(prog="bilevel score", description="Error rate, BLEU or chrF with 95 % bootstrap interval.")
    parser.add_argument("--ref", type=Path, required=True, help="reference: lines of <utterance> <text>")
    parser.add_argument("--hyp", type=Path, required=True, help="hypotheses: lines of <utterance> <text>")
    parser.add_argument("--metric", choices=tuple(METRICS), default="wer")
    parser.add_argument("--json", type=Path, help="write the score with the counts of every utterance")
    parser.add_argument("--utt2spk", type=Path, help="lines of <utterance> <speaker>")
    parser.add_argument("--case", choices=("lower", "upper", "keep"), help="error rates: lower; BLEU, chrF: keep")
    parser.add_argument("--punctuation", choices=("remove", "keep"), help="error rates: remove; others keep it")
    parser.add_argument("--tokenize", choices=bleu.TOKENIZERS, help="of BLEU: 13a; zh or char for Chinese")
    parser.add_argument("--resample", choices=("utterance", "speaker"), default="utterance")
    parser.add_argument("--n_bootstrap", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args(argv))
    ref, hyp, json_path, utt2spk = (args.pop(name) for name in ("ref", "hyp", "json", "utt2spk"))
    for name, metrics in _OPTIONS.items():
        if args[name] is None:
            del args[name]
        elif args["metric"] not in metrics:
            raise ValueError(f"--{name} is no option of --metric {args['metric']}; leave it out")
    score = wer.score if args["metric"] in RATES else bleu.score
    result = score(read_scp(ref), read_scp(hyp), utt2spk=read_scp(utt2spk) if utt2spk else None, **args)
    print(format_score(result))
    if json_path:
        result.write(json_path)
        print(f"\nwrote {json_path}")


if __name__ == "__main__":
    run(main)
