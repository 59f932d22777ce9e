"""`bilevel evaluate` (stage 13): score all decoded sets of one training and write its result.json."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.bin._training import write_result
from bilevel.data.files import Stamp, write_lines
from bilevel.data.normalise import normalise
from bilevel.data.tables import read_optional, read_scp
from bilevel.scoring import bleu, wer
from bilevel.scoring.result import METRICS, RATES
from bilevel.scoring.table import format_score


def main(argv: Sequence[str] | None) -> None:
    """Write score_<metric>.json per set, and EXP_DIR/result.json; the first metric is printed."""
    parser = Parser(prog="bilevel evaluate", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--inference_config", type=Path, required=True)
    parser.add_argument("--dirs", type=Path, nargs="+", required=True, help="dump directories of the sets")
    parser.add_argument("--punctuation", default="remove", choices=("remove", "keep"))
    parser.add_argument("--metrics", nargs="+", choices=tuple(METRICS), default=["wer", "cer"])
    parser.add_argument("--tokenize", choices=bleu.TOKENIZERS, help="of BLEU; 13a when not given")
    parser.add_argument("--bleu_case", choices=("keep", "lower"), default="keep", help="of BLEU and chrF")
    args = parser.parse_args(argv)
    form, cased = {"punctuation": args.punctuation}, {"case": args.bleu_case}
    options = {"wer": form, "cer": form, "bleu": cased | {"tokenize": args.tokenize}, "chrf": cased}
    options = {metric: options[metric] for metric in args.metrics}
    out_dirs = {folder: args.exp_dir / args.inference_config.stem / folder.name for folder in args.dirs}
    facts_files = [args.exp_dir / "cost.json", args.exp_dir / "run.json"]
    inputs = [*args.dirs, *(out / "text" for out in out_dirs.values()), *facts_files]
    config = {"metrics": options, "inference": args.inference_config.stem}
    stamp = Stamp(args.exp_dir / ".done/evaluate.json", inputs, config)
    if (args.exp_dir / "result.json").exists() and stamp.fresh():
        return
    results = []
    for folder, decoded in out_dirs.items():
        refs, utt2spk = read_scp(folder / "text"), read_optional(folder / "utt2spk") or None
        write_lines(decoded / "ref", [f"{key} {normalise(refs[key], **form)}".rstrip() for key in sorted(refs)])
        for metric in args.metrics:
            score = wer.score if metric in RATES else bleu.score
            found = score(refs, read_scp(decoded / "text"), metric=metric, utt2spk=utt2spk, **options[metric])
            found.write(decoded / f"score_{metric}.json")
            facts = {key: getattr(found, key) for key in ("value", "low", "high", "n_utts", "signature")}
            results.append({"set": folder.name, "metric": metric} | facts)
            if metric == args.metrics[0]:
                print(f"{decoded}\n{format_score(found)}", flush=True)
    write_result(args.exp_dir, results)
    stamp.write()


if __name__ == "__main__":
    run(main)
