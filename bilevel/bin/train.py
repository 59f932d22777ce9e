"""`bilevel train` (stage 11): train, or resume, one method."""

from collections.abc import Sequence

from bilevel.bin._cli import Parser, run
from bilevel.bin._training import (
    add_data_options,
    add_run_options,
    check_resume,
    merge_config,
    write_config,
    write_facts,
)
from bilevel.data.files import Stamp
from bilevel.data.lock import lock


def main(argv: Sequence[str] | None) -> None:
    """Write models, curves (train.jsonl) and cost (cost.json) to --exp_dir."""
    parser = Parser(prog="bilevel train", description=__doc__)
    add_data_options(parser)
    add_run_options(parser)
    args = parser.parse_args(argv)
    merged = merge_config(args)
    sources = [d for d in (args.train_dir, args.valid_dir, args.unlabelled_dir) if d] + [args.token_list]
    if args.pretrained:
        sources.append(args.pretrained / "latest.pth")
    stamp = Stamp(args.exp_dir / ".done" / "train.json", sources, merged | {"seed": args.seed})
    if stamp.fresh():
        return
    from bilevel.espnet.commands import train

    with lock(args.exp_dir):
        check_resume(stamp, args.exp_dir)
        stamp.begin()
        train(write_config(merged, args.exp_dir / "config.in.yaml"), args, args.exp_dir, args.stats_dir)
        write_facts(args, merged)
        stamp.write()


if __name__ == "__main__":
    run(main)
