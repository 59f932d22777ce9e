"""What every command shares: option parsing with a helpful error, one-line failures, progress."""

import argparse
import difflib
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose long options accept - for _, and whose errors name the nearest option."""

    def __init__(self, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        """Parse; `--a-b=c` is read as `--a_b=c`."""
        args = list(sys.argv[1:] if args is None else args)
        args = [re.sub(r"^--[^=]+", lambda m: "--" + m.group()[2:].replace("-", "_"), a) for a in args]
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.0)
            self.error(f"unknown option {name}; the nearest one is {near[0]}" if near else f"unknown option {name}")
        return known


def str2bool(text: str) -> bool:
    """Read ESPnet's true/false options."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no", "none"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


def fail(message: str, code: int = 1) -> NoReturn:
    """End with one line on stderr that says what is wrong and what to do."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Run a command; expected failures (bad data, bad files) become one line, not a traceback.

    SIGTERM ends it with code 143 the orderly way: temporary files and locks go, and finished epochs are resumed from.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(None)
    except (ValueError, OSError) as error:
        fail(str(error) or type(error).__name__)


def progress(items: Iterable, total: int, label: str) -> Iterator:
    """A bar on a terminal; in a log, a plain line at every tenth."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label)
        return
    step = max(1, total // 10)
    for n_done, item in enumerate(items, 1):
        yield item
        if n_done % step == 0 and total >= 10:
            print(f"{label}: {n_done}/{total}", flush=True)
