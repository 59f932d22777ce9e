"""`bilevel pack_encoder` (stage 9 of ssl.sh): one archive of a pre-trained encoder, unpacked and tried."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp


def main(argv: Sequence[str] | None) -> None:
    """Write EXP_DIR/packed.zip."""
    parser = Parser(prog="bilevel pack_encoder", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--check_dir", type=Path, required=True, help="dump directory to take a test utterance from")
    args = parser.parse_args(argv)
    config, model_file, archive = (args.exp_dir / name for name in ("config.yaml", "latest.pth", "packed.zip"))
    for file in (config, model_file):
        if not file.exists():
            raise ValueError(f"{file}: no such file; run stage 7 (pre-train) first")
    stamp = Stamp(args.exp_dir / ".done" / "pack.json", [config, model_file.resolve()], {})
    if archive.exists() and stamp.fresh():
        return
    from bilevel.espnet.pack import check_encoder_archive, pack_model

    pack_model(config, model_file, archive, [], kind="ssl")
    try:
        key = check_encoder_archive(args.exp_dir, archive, args.check_dir)
    except ValueError:
        archive.unlink()
        raise
    stamp.write()
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB; unpacked, it encodes {key} as before", flush=True)


if __name__ == "__main__":
    run(main)
