"""`bilevel doctor`: versions, libraries and hardware; for each fault a line that says how to mend it."""

from collections.abc import Sequence

from bilevel.bin._cli import Parser, fail, run
from bilevel.doctor import report


def main(argv: Sequence[str] | None) -> None:
    """Exit code 1 when something required is faulty."""
    Parser(prog="bilevel doctor", description=__doc__).parse_args(argv)
    n_faults = report(lambda line: print(line, flush=True))
    if n_faults:
        fail(f"{n_faults} required part{'s' * (n_faults > 1)} at fault; each line with -> says how to mend it")


if __name__ == "__main__":
    run(main)
