"""`bilevel pretrain` (stages 6 and 7 of ssl.sh): pre-train, or resume, one method."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin import _training as training
from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp
from bilevel.data.lock import lock


def main(argv: Sequence[str] | None) -> None:
    """Write models, curves (train.jsonl), cost.json and result.json to --exp_dir; statistics to --stats_dir."""
    parser = Parser(prog="bilevel pretrain", description=__doc__)
    training.add_set_options(parser)
    training.add_config_options(parser)
    training.add_run_options(parser)
    parser.add_argument("--targets_dir", type=Path, help="folder of frame labels, a file for each set (bilevel kmeans)")
    parser.add_argument("--only_stats", action="store_true", help="stage 6 alone")
    parser.add_argument("--pretrained", type=Path, help="experiment to start from, head included")
    parser.add_argument("--label", help="name in reports; by default the method's")
    parser.add_argument("--pool_sources", action="store_true", help="one batch a step, from all sources")
    args = parser.parse_args(argv)
    merged = training.merge_config(args, method_first=True)
    start = args.pretrained / "latest.pth" if args.pretrained else None
    sources = [path for path in (args.train_dir, args.valid_dir, args.targets_dir, start) if path]
    front_end = {key: merged.get(key) for key in ("frontend", "frontend_conf", "normalize")}
    # Named only where it is given: stamps of trainings without it stay as they are.
    pooled = {"pool_sources": True} if args.pool_sources else {}
    stats_stamp = Stamp(args.stats_dir / ".done" / "stats.json", [args.train_dir, args.valid_dir], front_end | pooled)
    stamp = Stamp(args.exp_dir / ".done" / "pretrain.json", sources, merged | {"seed": args.seed} | pooled)
    if (stats_stamp if args.only_stats else stamp).fresh():
        return
    from bilevel.espnet import pretrain

    if args.only_stats:
        pretrain.collect_stats(training.write_config(merged, args.stats_dir / "config.in.yaml"), args)
        stats_stamp.write()
        return
    if not stats_stamp.path.exists() or stats_stamp.changes():
        differs = ", ".join(stats_stamp.changes()) or "nothing there"
        raise ValueError(f"{args.stats_dir}: no statistics of this front-end and data ({differs}); run stage 6 first")
    with lock(args.exp_dir):
        training.check_resume(stamp, args.exp_dir)
        stamp.begin()
        pretrain.pretrain(training.write_config(merged, args.exp_dir / "config.in.yaml"), args)
        training.write_facts(args, merged)
        training.write_result(args.exp_dir)
        stamp.write()


if __name__ == "__main__":
    run(main)
