"""`bilevel filter` (stage 4): drop too short, too long and empty utterances; refuse train/test overlap."""

import json
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp
from bilevel.data.filter import drop_unusable, read_dump, write_dump
from bilevel.data.overlap import check_overlap


def main(argv: Sequence[str] | None) -> None:
    """Write OUT_DIR/<set> from IN_DIR/<set> for every set; nothing is written when one is refused."""
    parser = Parser(prog="bilevel filter", description=__doc__)
    parser.add_argument("--in_dir", type=Path, required=True, help="dump/<feats_type>/org")
    parser.add_argument("--out_dir", type=Path, required=True, help="dump/<feats_type>")
    parser.add_argument("--train_sets", nargs="*", default=[], help="labelled sets; none: no set needs text")
    parser.add_argument("--unlabelled_sets", nargs="*", default=[], help="sets to train on without their text")
    parser.add_argument("--valid_sets", nargs="*", default=[], help="filtered as training sets are")
    parser.add_argument("--test_sets", nargs="*", default=[], help="kept in full")
    parser.add_argument("--min_sec", type=float, default=0.1, help="training utterances must be longer")
    parser.add_argument("--max_sec", type=float, default=20.0, help="training utterances must be shorter")
    parser.add_argument("--allow_overlap", action="store_true", help="go on although evaluation sets leak")
    same_text = {"choices": ("refuse", "warn"), "help": "a speaker says the same words in train and test"}
    parser.add_argument("--same_text", default="refuse", **same_text)
    parser.add_argument("--nj", type=int, default=1, help="number of processes")
    args = parser.parse_args(argv)
    names = list(dict.fromkeys([*args.train_sets, *args.unlabelled_sets, *args.valid_sets, *args.test_sets]))
    if not args.train_sets and not args.unlabelled_sets:
        raise ValueError("nothing to train on: name --train_sets, --unlabelled_sets or both")
    stamp = Stamp(
        args.out_dir / ".done" / f"filter_{names[0]}.json",
        [args.in_dir / name for name in names],
        {key: value for key, value in vars(args).items() if key != "nj"},
    )
    if all((args.out_dir / name / "utt2spk").exists() for name in names) and stamp.fresh():
        return
    stamp.path.unlink(missing_ok=True)
    dumps = {name: read_dump(args.in_dir / name) for name in names}
    for name in names:
        if name not in args.test_sets:
            labelled = bool(args.train_sets) and name not in args.unlabelled_sets
            drop_unusable(dumps[name], min_sec=args.min_sec, max_sec=args.max_sec, labelled=labelled)
    train = [dumps[name] for name in (*args.train_sets, *args.unlabelled_sets)]
    others = [dumps[name] for name in dict.fromkeys((*args.valid_sets, *args.test_sets))]
    refuse = args.same_text == "refuse"
    reports = check_overlap(train, others, allow=args.allow_overlap, refuse_same_text=refuse, nj=args.nj)
    for name, dump in dumps.items():
        extra = {"overlap.json": json.dumps(reports[name])} if name in reports else {}
        write_dump(dump, args.out_dir / name, extra)
        print(f"{args.out_dir / name}: {len(dump.ids)} utterances, {len(dump.dropped)} dropped", flush=True)
    stamp.write()


if __name__ == "__main__":
    run(main)
