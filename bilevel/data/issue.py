"""One fault of a data directory."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Issue:
    """What is wrong where, and what to do.

    Attributes:
        file: File name within the data directory.
        line: Line number counted from 1; 0 means the whole file.
        reason: What was found, and what was expected.
        remedy: What mends it.
        fixable: Whether `fix` can do that.
    """

    file: str
    line: int
    reason: str
    remedy: str
    fixable: bool = False

    def __str__(self) -> str:
        """One line: `file:line: reason -> remedy`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.reason} -> {self.remedy}{' [--fix]' if self.fixable else ''}"
