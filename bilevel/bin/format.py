"""`bilevel format` (stage 3): scan the audio of a data directory, cut and convert it, write the dump."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, progress, run, str2bool
from bilevel.data.format import FormatConfig, format_datadir
from bilevel.data.scan import Limits


def main(argv: Sequence[str] | None) -> None:
    """Write OUT_DIR (by habit dump/<feats_type>/org/<set>) from IN_DIR."""
    parser = Parser(prog="bilevel format", description=__doc__)
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory")
    parser.add_argument("--out_dir", type=Path, required=True, help="dump directory to write")
    parser.add_argument("--feats_type", default="raw", choices=("raw", "fbank"), help="audio files or log-mel archives")
    parser.add_argument("--fs", type=int, default=16000, help="sampling rate in Hz")
    parser.add_argument("--resample", type=str2bool, default=False, help="convert audio of another rate")
    parser.add_argument("--channel", type=int, help="channel (from 0) to take of files with several")
    parser.add_argument("--n_mels", type=int, default=80, help="filters of fbank features")
    parser.add_argument("--min_sec", type=float, default=Limits.min_sec, help="shorter utterances are quarantined")
    parser.add_argument("--max_sec", type=float, default=Limits.max_sec, help="longer utterances are quarantined")
    lack = "take files that lack up to this share of what their header promises"
    parser.add_argument("--max_missing_share", type=float, default=Limits.max_missing_share, help=lack)
    parser.add_argument("--max_bad_share", type=float, default=Limits.max_bad_share, help="stop above this share")
    parser.add_argument("--allow_pipes", action="store_true", help="run `command |` entries (without a shell)")
    parser.add_argument("--nj", type=int, default=1, help="number of processes")
    args = parser.parse_args(argv)
    limits = Limits(
        rate_hz=args.fs,
        resample=args.resample,
        min_sec=args.min_sec,
        max_sec=args.max_sec,
        max_missing_share=args.max_missing_share,
        max_bad_share=args.max_bad_share,
        allow_pipes=args.allow_pipes,
    )
    if args.allow_pipes:
        print("note: --allow_pipes runs the commands that wav.scp names; trust them first", flush=True)
    config = FormatConfig(limits=limits, feats_type=args.feats_type, channel=args.channel, n_mels=args.n_mels)
    format_datadir(args.in_dir, args.out_dir, config, nj=args.nj, progress=progress)


if __name__ == "__main__":
    run(main)
