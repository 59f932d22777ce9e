"""`bilevel evaluate` (stage 13): score all decoded sets of one training and write its result.json."""

import json
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.bin._training import write_result
from bilevel.data.files import Stamp
from bilevel.scoring import bleu
from bilevel.scoring.decoding import score_sets
from bilevel.scoring.result import METRICS


def main(argv: Sequence[str] | None) -> None:
    """Write score_<metric>.json per set, and EXP_DIR/result.json; the first metric is printed.

    With --objective, result.json keeps what it says of other objectives.
    """
    parser = Parser(prog="bilevel evaluate", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--inference_config", type=Path, required=True)
    parser.add_argument("--dirs", type=Path, nargs="+", required=True, help="dump directories of the sets")
    parser.add_argument("--objective", help="of a multi-objective training, such as st_fr_en")
    parser.add_argument("--table", default="text", help="references; text.<lang> has translations")
    parser.add_argument("--punctuation", default="remove", choices=("remove", "keep"))
    parser.add_argument("--metrics", nargs="+", choices=tuple(METRICS), default=["wer", "cer"])
    parser.add_argument("--tokenize", choices=bleu.TOKENIZERS, help="of BLEU; 13a when not given")
    parser.add_argument("--bleu_case", choices=("keep", "lower"), default="keep", help="of BLEU and chrF")
    args = parser.parse_args(argv)
    form, cased = {"punctuation": args.punctuation}, {"case": args.bleu_case}
    options = {"wer": form, "cer": form, "bleu": cased | {"tokenize": args.tokenize}, "chrf": cased}
    options = {metric: options[metric] for metric in args.metrics}
    suffix = f"_{args.objective}" if args.objective else ""
    name = args.inference_config.stem + suffix
    decoded = {folder: args.exp_dir / name / folder.name for folder in args.dirs}
    facts_files = [args.exp_dir / "cost.json", args.exp_dir / "run.json"]
    inputs = [*args.dirs, *(out / "text" for out in decoded.values()), *facts_files]
    config = {"metrics": options, "inference": args.inference_config.stem}
    if args.table != "text":
        config["table"] = args.table
    stamp = Stamp(args.exp_dir / f".done/evaluate{suffix}.json", inputs, config)
    result = args.exp_dir / "result.json"
    if result.exists() and stamp.fresh():
        return
    rows = score_sets(decoded, args.table, options)
    if args.objective:
        old = json.loads(result.read_text())["results"] if result.exists() else []
        rows = [r for r in old if r.get("objective") != args.objective] + [
            {"objective": args.objective} | r for r in rows
        ]
    write_result(args.exp_dir, rows)
    stamp.write()


if __name__ == "__main__":
    run(main)
