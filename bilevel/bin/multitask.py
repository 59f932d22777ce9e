"""`bilevel multitask` (stages 10 and 11 of st.sh): recognition and translation with one encoder, by levels."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin import _training as training
from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp
from bilevel.data.lock import lock
from bilevel.espnet.moo_data import Stream

STREAM = ("NAME", "TRAIN_DIRS", "VALID_DIRS", "TOKENS", "TOKEN_TYPE")


def main(argv: Sequence[str] | None) -> None:
    """Write data of the objectives to --stats_dir; models, curves, cost.json and conflict.json to --exp_dir."""
    parser = Parser(prog="bilevel multitask", description=__doc__)
    training.add_config_options(parser)
    training.add_run_options(parser)
    text = "an objective, dump directories (joined by commas), folder and type of its token list; - - for ssl"
    parser.add_argument("--stream", nargs=5, action="append", metavar=STREAM, required=True, help=text)
    parser.add_argument("--only_stats", action="store_true", help="stage 10 alone")
    parser.add_argument("--pretrained", type=Path, help="experiment of bilevel pretrain to start from")
    parser.add_argument("--label", help="name in reports; by default the method's")
    args = parser.parse_args(argv)
    streams = [Stream.read(*words) for words in args.stream]
    from bilevel.espnet import moo_launch

    inputs = [path for stream in streams for path in (*stream.train, *stream.valid, stream.tokens) if path]
    data_stamp = Stamp(args.stats_dir / ".done" / "streams.json", inputs, {"streams": args.stream})
    if args.only_stats:
        if not data_stamp.fresh():
            moo_launch.write_streams(streams, args.stats_dir)
            data_stamp.write()
        return
    if not data_stamp.path.exists() or data_stamp.changes():
        raise ValueError(f"{args.stats_dir}: not the data of these objectives; run stage 10 first")
    confs = {stream.name: moo_launch.stream_conf(stream, args.stats_dir) for stream in streams}
    merged = training.merge_config(args) | {"streams": confs}
    start = [args.pretrained / "latest.pth"] if args.pretrained else []
    stamp = Stamp(
        args.exp_dir / ".done" / "multitask.json", inputs + start, merged | {"seed": args.seed, "label": args.label}
    )
    if stamp.fresh():
        return
    with lock(args.exp_dir):
        training.check_resume(stamp, args.exp_dir)
        stamp.begin()
        moo_launch.train(training.write_config(merged, args.exp_dir / "config.in.yaml"), args, streams)
        training.write_facts(args, merged)
        stamp.write()


if __name__ == "__main__":
    run(main)
