"""`bilevel stats` (stage 10): shapes and feature statistics through ESPnet's collect_stats."""

from collections.abc import Sequence

from bilevel.bin._cli import Parser, run
from bilevel.bin._training import add_data_options, merge_config, write_config
from bilevel.data.files import Stamp


def main(argv: Sequence[str] | None) -> None:
    """Write the statistics of the data that a configuration is trained on."""
    parser = Parser(prog="bilevel stats", description=__doc__)
    add_data_options(parser)
    args = parser.parse_args(argv)
    merged = merge_config(args)
    config = write_config(merged, args.stats_dir / "config.in.yaml")
    front_end = {key: merged.get(key) for key in ("frontend", "frontend_conf", "preprocessor", "preprocessor_conf")}
    sources = [d for d in (args.train_dir, args.valid_dir, args.unlabelled_dir) if d] + [args.token_list]
    stamp = Stamp(args.stats_dir / ".done" / "stats.json", sources, front_end)
    if stamp.fresh():
        return
    from bilevel.espnet.commands import collect_stats

    collect_stats(config, args, args.stats_dir)
    stamp.write()


if __name__ == "__main__":
    run(main)
