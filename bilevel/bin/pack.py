"""`bilevel pack` (stage 14; 9 of ssl.sh): one archive for inference, unpacked and tried before it counts as done."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run
from bilevel.data.files import Stamp


def main(argv: Sequence[str] | None) -> None:
    """Write EXP_DIR/packed.zip, or EXP_DIR/<objective>/packed.zip."""
    parser = Parser(prog="bilevel pack", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--encoder", action="store_true", help="a pre-training: it is tried by its states, not words")
    parser.add_argument("--objective", help="of a multi-objective training, such as st_fr_en")
    parser.add_argument("--model", help="weights in EXP_DIR; default: valid.cer_ctc.ave.pth, or latest.pth (--encoder)")
    parser.add_argument("--check_dir", type=Path, required=True, help="dump directory to take a test utterance from")
    args = parser.parse_args(argv)
    kind, stage, default = ("ssl", 7, "latest.pth") if args.encoder else ("asr", 11, "valid.cer_ctc.ave.pth")
    config, model_file = args.exp_dir / "config.yaml", args.exp_dir / (args.model or default)
    archive = args.exp_dir / (args.objective or "") / "packed.zip"
    for file in (config, model_file):
        if not file.exists():
            there = ", ".join(sorted(path.name for path in args.exp_dir.glob("*.pth"))) or "no weights"
            raise ValueError(f"{file}: no such file; run stage {stage}, or name another --model (there: {there})")
    result, table = args.exp_dir / "result.json", args.exp_dir.parent / "RESULTS.md"
    # Not the table: it is dated, and other experiments change it.
    stamp = Stamp(archive.parent / ".done" / "pack.json", [config, model_file.resolve(), result], {})
    if archive.exists() and stamp.fresh():
        return
    from bilevel.espnet.moo_launch import model_files
    from bilevel.espnet.pack import VERBS, check_archive, pack_model

    config, model_file = model_files(args.exp_dir, model_file.name, args.objective)
    pack_model(config, model_file, archive, [path for path in (result, table) if path.exists()], kind)
    try:
        key, found = check_archive(config, model_file, archive, args.check_dir, kind)
    except ValueError:
        archive.unlink()
        raise
    stamp.write()
    size = f"{archive.stat().st_size / 1e6:.1f} MB"
    print(f"{archive}: {size}; unpacked, it {VERBS[kind]} {key} as before: {found!r}", flush=True)


if __name__ == "__main__":
    run(main)
