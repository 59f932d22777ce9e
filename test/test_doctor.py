"""The doctor tells every fault, how to mend it, and is quick about it."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bilevel import doctor
from bilevel.bin.doctor import main

ROOT = Path(__file__).resolve().parents[1]
WANTED = ["numpy>=2.0", "soundfile>=0.13", 'kaldiio>=2.18; extra == "kaldiio"', 'kaldiio>=2.18; extra == "all"']


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: WANTED)


def found() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks()}


def test_a_sound_environment_has_no_required_fault(capsys):
    main([])
    out = capsys.readouterr().out.splitlines()
    names = [line[6:24].strip() for line in out if line[:6].strip() in ("ok", "fault")]
    assert len(names) == len(set(names))
    assert {
        "python", "numpy", "soundfile", "kaldiio", "torch build", "torchaudio import", "libsndfile", "reads FLAC",
        "reads Ogg/Opus", "reads SPHERE", "CPU cores", "memory", "free disk here", "git", "shellcheck", "chromium",
    } <= set(names)  # fmt: skip
    assert any(name.startswith("GPU") for name in names)
    assert importlib.metadata.version("numpy") in next(line for line in out if "numpy" in line)
    faults = [n for n, line in enumerate(out) if line.startswith("fault")]
    assert all(out[n + 1].strip().startswith("-> ") for n in faults)


def test_missing_and_unfit_packages(monkeypatch, capsys):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("kaldiio", "soundfile"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.26.4" if name == "numpy" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = found()
    assert checks["numpy"].found == "1.26.4, wanted >=2.0"
    assert checks["soundfile"].required
    assert "pip install -c constraints.txt 'soundfile>=0.13'" in checks["soundfile"].mend
    assert checks["kaldiio"].mend
    assert not checks["kaldiio"].required
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == 1
    assert "2 required parts at fault" in capsys.readouterr().err


def test_not_installed_at_all(monkeypatch):
    def requires(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert found()["bilevel"].mend == "make setup"


def test_torchaudio_beside_a_cpu_build_of_torch(monkeypatch):
    import torch

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchaudio":
                raise OSError("libcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    checks = found()
    assert checks["torch build"].found == "for the CPU"
    assert checks["torchaudio import"].found == "fails: libcudart.so.13: cannot open shared object file"
    assert "from the CPU index" in checks["torchaudio import"].mend


def test_a_sound_library_without_opus(monkeypatch):
    import soundfile

    write = soundfile.write

    def old_library(file, data, rate, format=None, subtype=None):
        if subtype == "OPUS":
            raise ValueError("Unknown format")
        write(file, data, rate, format=format, subtype=subtype)

    monkeypatch.setattr(soundfile, "write", old_library)
    checks = found()
    assert checks["reads FLAC"].mend == ""
    assert "force-reinstall soundfile" in checks["reads Ogg/Opus"].mend


def test_missing_programs_and_a_full_disk_are_told_but_not_fatal(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    checks = found()
    for name in ("git", "shellcheck", "chromium"):
        assert checks[name].lines()[0].endswith("not found (optional)")
        assert f"apt-get install {name}" in checks[name].mend
    assert "--dumpdir" in checks["free disk here"].mend
    assert not checks["free disk here"].required


def test_it_does_not_import_espnet():
    code = "import sys\nfrom bilevel import doctor\nlist(doctor.checks())\nprint('espnet2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
