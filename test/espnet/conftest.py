import sys
from pathlib import Path

import pytest

# Test folders are no packages; the processes of test_distributed find the same module beside their script.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    from asr_kit import Corpus

    return Corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def kit(corpus):
    from asr_kit import Kit

    return Kit(corpus)
