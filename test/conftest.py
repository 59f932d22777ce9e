"""Fixtures that all tests share."""

import atexit
import os
from pathlib import Path

import pytest

# SWIG modules warn while the interpreter ends, below the summary that has to be the last line.
atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    import random

    import numpy as np

    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real recorded speech beside the checkout; CI has it, so there its absence is a failure."""
    path = Path(os.environ.get("BILEVEL_SHARED", ROOT.parent / "shared"))
    if not (path / "data" / "real").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{path} holds no data/real; set BILEVEL_SHARED")
        pytest.skip(f"no real speech at {path}: set BILEVEL_SHARED to the folder that holds data/real")
    return path
