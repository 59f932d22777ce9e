"""Pages of doc/ name files and functions that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("doc/*.md"))


def test_there_are_pages():
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:bilevel|egs|test|bench)/[^`\s]*)`", text):
        assert (ROOT / name).exists(), name
    for file, names in re.findall(r"`(bilevel/[^`]*\.py)`: ((?:`\w+`[^|`;]*)+)", text):
        code = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^\s*(?:def|class) {name}\b", code, re.MULTILINE), f"{file}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    keys = set(re.findall(r"`((?:plan|penalty|stage_lr|optim)_conf)`: ([^|]*)", page.read_text(encoding="utf-8")))
    code = (ROOT / "bilevel/optim/schedule.py").read_text(encoding="utf-8")
    for _, names in keys:
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^    {name}: ", code, re.MULTILINE), name


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_examples_run_and_are_short(page):
    for code in blocks(page):
        assert len(code.splitlines()) <= 20
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
