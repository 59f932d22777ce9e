import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make():
    from moo_kit import Tiny

    return Tiny


@pytest.fixture
def model(make):
    return make()
