"""Who may import whom, how long files may be, and what the tree may hold; lazy imports count."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALL = {"bin", "corpora", "data", "doctor", "espnet", "models", "moo", "optim", "problems", "report", "scoring"}
ALL |= {"testing"}
ALLOWED = {
    "bin": ALL,
    "corpora": {"data"},
    "data": set(),
    "doctor": set(),
    "espnet": {"optim", "moo", "models", "data"},
    "models": set(),
    "moo": set(),
    "optim": set(),
    "problems": {"optim", "moo", "data"},
    "report": {"scoring", "data"},
    "scoring": {"data"},
    "testing": {"data", "optim", "moo"},
}
ONLY_IN = {"espnet2": {"espnet"}, "matplotlib": {"report"}, "sacrebleu": {"scoring"}, "kaldiio": {"data"}}
ONLY_IN |= {"torchjd": {"moo"}}
NEVER_IN = {
    "optim": {"torchaudio", "soundfile", "numpy", "scipy"},  # torch alone
    "moo": {"torchaudio", "soundfile", "numpy", "scipy"},  # torch alone
    "problems": {"torchaudio", "soundfile"},
    "data": {"espnet2"},
    "scoring": {"torch"},
}
MAX_LINES = {
    "bilevel/bin/[a-z]*.py": 60,
    "egs/*/*/run.sh": 20,
    "egs/TEMPLATE/*/asr.sh": 300,
    "**/*.py": 400,
    "**/*.sh": 300,
}


def files(*patterns: str) -> list[Path]:
    """Files that are, or with the next commit will be, in git."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    paths = [ROOT / name for name in sorted(filter(None, listed))]
    return [path for path in paths if path.is_symlink() or path.exists()]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in files("bilevel/*.py")}


def imports(path: Path) -> dict[str, bool]:
    """Imported modules; True when the import runs with the module, False when it is inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in inner]
        for name in names:
            found[name] = found.get(name, False) or id(node) not in lazy
    return found


IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def layer(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_layers_below_it(module):
    here = layer(module)
    assert here in ALLOWED or module == "bilevel", f"{module}: add its layer to the table"
    for name in IMPORTS[module]:
        top, there = name.split(".")[0], layer(name)
        if top == "bilevel" and there:
            assert there == here or there in ALLOWED[here], f"{module} imports {name}"
        assert here in ONLY_IN.get(top, {here}), f"{module} imports {top}"
        assert top not in NEVER_IN.get(here, ()), f"{module} imports {top}"
        assert not (IMPORTS[module][name] and top in ("matplotlib", "sacrebleu")), f"{module}: import {top} lazily"


def test_there_is_no_import_cycle():
    edges = {name: [n for n in found if n in MODULES and n != name] for name, found in IMPORTS.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in edges[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("light", ["data", "scoring", "corpora", "report", "bin"])
def test_light_layers_import_torch_and_espnet_only_inside_functions(light):
    """A data stage must not wait for torch; so nothing heavy may hang on its import-time edges."""
    heavy = {"torch", "torchaudio", "espnet2", "espnet", "matplotlib", "sacrebleu", "lhotse"}

    def eager(module: str, seen: set[str]) -> set[str]:
        seen.add(module)
        now = {name for name, at_import in IMPORTS[module].items() if at_import}
        below = (eager(name, seen) for name in now if name in MODULES and name not in seen)
        return {name.split(".")[0] for name in now}.union(*below)

    for module in MODULES:
        if layer(module) == light:
            assert not eager(module, set()) & heavy, module


@pytest.mark.parametrize("pattern", MAX_LINES)
def test_files_are_short(pattern):
    for path in files(f":(glob){pattern}"):
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        assert n_lines <= MAX_LINES[pattern], f"{path}: {n_lines} lines"


def test_the_tree_has_no_links_and_no_machine_paths():
    machine = re.compile(r"(?<![\w.}])/(?:work|root|home)/\w")
    for path in files():
        assert not path.is_symlink(), path
        text = path.read_bytes()
        if b"\0" not in text:
            found = machine.search(text.decode("utf-8"))
            assert found is None, f"{path}: {found and found.group()}"


def test_nothing_of_a_recipe_is_ignored_by_git():
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--ignored", "--exclude-standard", "--", "egs"]
    ignored = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    outputs = ("data", "dump", "exp", "downloads")
    lost = [n for n in ignored if n.endswith((".sh", ".py", ".yaml")) and n.split("/")[3] not in outputs]
    assert not lost, "git would not take these files along"
