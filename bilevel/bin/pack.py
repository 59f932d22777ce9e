"""`bilevel pack` (stage 14): one archive for inference, unpacked and tried before it counts as done."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp


def main(argv: Sequence[str] | None) -> None:
    """Write EXP_DIR/packed.zip."""
    parser = Parser(prog="bilevel pack", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--model", default="valid.cer_ctc.ave.pth", help="weights in EXP_DIR")
    parser.add_argument("--check_dir", type=Path, required=True, help="dump directory to take a test utterance from")
    args = parser.parse_args(argv)
    config, model_file, archive = (args.exp_dir / name for name in ("config.yaml", args.model, "packed.zip"))
    for file in (config, model_file):
        if not file.exists():
            found = ", ".join(sorted(path.name for path in args.exp_dir.glob("*.pth"))) or "no weights"
            raise ValueError(f"{file}: no such file; run stage 11 (train), or name another --model (there: {found})")
    result, table = args.exp_dir / "result.json", args.exp_dir.parent / "RESULTS.md"
    # Not the table: it is dated, and other experiments change it.
    stamp = Stamp(args.exp_dir / ".done" / "pack.json", [config, model_file.resolve(), result], {})
    if archive.exists() and stamp.fresh():
        return
    from bilevel.espnet.pack import check_archive, pack_model

    pack_model(config, model_file, archive, [path for path in (result, table) if path.exists()])
    try:
        key, text = check_archive(config, model_file, archive, args.check_dir)
    except ValueError:
        archive.unlink()
        raise
    stamp.write()
    print(
        f"{archive}: {archive.stat().st_size / 1e6:.1f} MB; unpacked, it decodes {key} as before: {text!r}", flush=True
    )


if __name__ == "__main__":
    run(main)
