"""What this machine has of what the toolkit needs, and how to mend what it has not."""

import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIN_FREE_GB = 10
MIN_RAM_GB = 4


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        found: Version, size or fault.
        mend: How to mend it; empty when all is well.
        required: Whether nothing works without it.
    """

    name: str
    found: str
    mend: str = ""
    required: bool = True

    def lines(self) -> list[str]:
        """The line, and for a fault a second one with the remedy."""
        state = "fault" if self.mend else "ok"
        note = "" if self.required or not self.mend else " (optional)"
        line = f"{state:6}{self.name:18}{self.found}{note}"
        return [line, f"{'':6}{'':18}-> {self.mend}"] if self.mend else [line]


def checks() -> Iterator[Check]:
    """All checks; ESPnet is not imported."""
    yield _python()
    yield from _packages()
    yield from _torch()
    yield from _sound()
    yield from _machine()
    yield from _programs()


def _python() -> Check:
    version = platform.python_version()
    fits = (3, 12) <= sys.version_info[:2] < (3, 14)
    return Check("python", version, "" if fits else "ESPnet 202611 needs Python 3.12 or 3.13: PYTHON=... make setup")


def _packages() -> Iterator[Check]:
    """Every package that setup.py names, against its bounds."""
    try:
        requirements = importlib.metadata.requires("bilevel") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("bilevel", "not installed in this environment", "make setup")
        return
    from packaging.requirements import Requirement

    seen = set()
    for requirement in map(Requirement, requirements):
        required = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name in seen:  # the extra `all` repeats the others
            continue
        seen.add(requirement.name)
        mend = f".venv/bin/python -m pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(requirement.name, "not installed", mend, required)
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        wanted = "" if fits else f", wanted {requirement.specifier}"
        yield Check(requirement.name, version + wanted, "" if fits else mend, required)


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch build", f"does not import: {_first_line(error)}", "rm -r .venv; make setup")
        return
    build = torch.version.cuda or torch.version.hip
    yield Check("torch build", f"for CUDA {build}" if build else "for the CPU")
    yield _torchaudio(bool(build))
    if torch.cuda.is_available():
        for n in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(n)
            yield Check(f"GPU {n}", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    elif shutil.which("nvidia-smi") is None:
        yield Check("GPU", "none; training runs on the CPU (--ngpu 0)")
    elif build:
        yield Check("GPU", "torch cannot use it", f"update the driver to one for CUDA {build}", required=False)
    else:
        yield Check("GPU", "torch is a CPU build", "install torch and torchaudio for CUDA", required=False)


def _torchaudio(cuda_build: bool) -> Check:
    try:
        import torchaudio
    except (ImportError, OSError) as error:
        mend = "rm -r .venv; make setup"
        if not cuda_build:
            mend = "its wheel wants CUDA libraries: install torchaudio from the CPU index that torch came from"
        return Check("torchaudio import", f"fails: {_first_line(error)}", mend)
    return Check("torchaudio import", torchaudio.__version__)


def _sound() -> Iterator[Check]:
    try:
        import numpy as np
        import soundfile
    except (ImportError, OSError) as error:
        yield Check("libsndfile", f"not found: {_first_line(error)}", "pip install --force-reinstall soundfile")
        return
    yield Check("libsndfile", soundfile.__libsndfile_version__)
    for name, kind, subtype in (("FLAC", "FLAC", "PCM_16"), ("Ogg/Opus", "OGG", "OPUS"), ("SPHERE", "NIST", "PCM_16")):
        stream = io.BytesIO()
        try:
            soundfile.write(stream, np.zeros(1600), 16000, format=kind, subtype=subtype)
            stream.seek(0)
            soundfile.read(stream)
        except (RuntimeError, ValueError) as error:
            mend = "use the libsndfile inside the wheel: pip install --force-reinstall soundfile"
            yield Check(f"reads {name}", _first_line(error), mend)
        else:
            yield Check(f"reads {name}", "yes")


def _machine() -> Iterator[Check]:
    yield Check("CPU cores", str(len(os.sched_getaffinity(0))))
    ram_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    mend = "" if ram_gb >= MIN_RAM_GB else f"training wants {MIN_RAM_GB} GB: use a smaller batch_bins"
    yield Check("memory", f"{ram_gb:.0f} GB", mend, required=False)
    free_gb = shutil.disk_usage(".").free / 1e9
    mend = "" if free_gb >= MIN_FREE_GB else f"free {MIN_FREE_GB} GB here, or set --dumpdir and --expdir elsewhere"
    yield Check("free disk here", f"{free_gb:.0f} GB", mend, required=False)


def _programs() -> Iterator[Check]:
    for names, use in (
        (("git",), "the commit in result.json"),
        (("shellcheck",), "make lint"),
        (("chromium", "chromium-browser", "google-chrome"), "the test of the HTML report"),
    ):
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            yield Check(names[0], "not found", f"apt-get install {names[0]} (for {use})", required=False)
        else:
            yield Check(names[0], _version(path))


def _version(path: str) -> str:
    command = [path, "--version"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return path
    return next((line for line in output.splitlines() if any(map(str.isdigit, line))), path).strip()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def report(write: Callable[[str], None]) -> int:
    """Write every check; return the number of faults in what is required."""
    n_faults = 0
    for check in checks():
        n_faults += bool(check.mend) and check.required
        for line in check.lines():
            write(line)
    return n_faults
