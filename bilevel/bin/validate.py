"""`bilevel validate DIR`: list every fault of a data directory; `--fix` mends what can be mended."""

from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, fail, run
from bilevel.data.fix import fix
from bilevel.data.validate import validate


def main(argv: Sequence[str] | None) -> None:
    """Exit code 1 when faults remain."""
    parser = Parser(prog="bilevel validate", description=__doc__)
    parser.add_argument("dirs", nargs="+", type=Path, help="Kaldi-style data directories")
    parser.add_argument("--fix", action="store_true", help="mend what is marked [--fix]; backup in DIR/.backup")
    parser.add_argument("--drop_missing", action="store_true", help="with --fix: drop one-sided utterances")
    parser.add_argument("--allow_pipes", action="store_true", help="accept `command |` entries in wav.scp")
    args = parser.parse_args(argv)
    if args.drop_missing and not args.fix:
        parser.error("--drop_missing changes files: add --fix")
    n_faults = n_fixable = 0
    for path in args.dirs:
        if args.fix and path.is_dir():
            for note in fix(path, drop_missing=args.drop_missing):
                print(note)
        issues = validate(path, allow_pipes=args.allow_pipes)
        n_faults += len(issues)
        n_fixable += sum(issue.fixable for issue in issues)
        for issue in issues:
            print(f"{path}/{issue}")
        if not issues:
            print(f"{path}: sound")
    if n_faults:
        remedy = f"; --fix mends {n_fixable} of them" if n_fixable else ""
        fail(f"{n_faults} faults in {', '.join(map(str, args.dirs))}{remedy}")


if __name__ == "__main__":
    run(main)
