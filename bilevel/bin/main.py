"""`bilevel COMMAND ...`: dispatch to the module of that name."""

import difflib
import importlib
import pkgutil
import sys

import bilevel.bin
from bilevel.bin._cli import fail


def main() -> None:
    """Entry point of the `bilevel` command."""
    names = sorted(m.name for m in pkgutil.iter_modules(bilevel.bin.__path__) if m.name != "main" and m.name[0] != "_")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"usage: bilevel COMMAND [options]\ncommands: {', '.join(names)}\n'bilevel COMMAND --help' tells more")
        return
    name = sys.argv[1]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        fail(f"unknown command {name!r}; the nearest one is {near[0]!r}", code=2)
    sys.argv = [f"bilevel {name}", *sys.argv[2:]]
    from bilevel.bin._cli import run

    run(importlib.import_module(f"bilevel.bin.{name}").main)


if __name__ == "__main__":
    main()
