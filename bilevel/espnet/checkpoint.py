"""Checkpoints that survive a kill, a full disk and a flipped bit."""

import logging
import os
import zipfile
import zlib
from pathlib import Path

import torch

from bilevel.data.files import atomic_path


def set_aside(output_dir: Path) -> None:
    """Keep the last checkpoint as checkpoint.prev.pth, because ESPnet writes the next one in place."""
    last = output_dir / "checkpoint.pth"
    if last.exists():
        os.replace(last, last.with_name("checkpoint.prev.pth"))


def intact(path: Path) -> bool:
    """Whether a file of `torch.save` is complete and agrees with its own checksums; `torch.load` does not look."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return False
        # Checksums do not cover the archive's own headers, and torch reads those more strictly than zipfile.
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return True
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError):
        return False


def recover_checkpoint(output_dir: Path) -> None:
    """Before a resume: fall back to the previous checkpoint when the last one is damaged or missing.

    One process of a training does so while the others wait.

    Raises:
        ValueError: The previous checkpoint is damaged, too.
    """
    distributed = torch.distributed.is_initialized()
    if not distributed or torch.distributed.get_rank() == 0:
        _recover(output_dir)
    if distributed:
        torch.distributed.barrier()


def _recover(output_dir: Path) -> None:
    last, previous = output_dir / "checkpoint.pth", output_dir / "checkpoint.prev.pth"
    if last.exists() and not intact(last):
        logging.warning(f"{last} is damaged (cut off, or changed since it was written) and is not used")
        last.unlink()
    if not last.exists() and previous.exists():
        if not intact(previous):
            raise ValueError(f"{previous}: damaged, and {last.name} is gone: delete it to train from the start")
        logging.warning(f"resuming from {previous.name}: at most one epoch is trained again")
        os.replace(previous, last)
    if last.exists():
        _complete(last)


def _complete(checkpoint: Path) -> None:
    """Write the last epoch's model again if the run ended between the two files that ESPnet saves in turn."""
    states = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    model_file = checkpoint.with_name(f"{max(states['reporter']['stats'])}epoch.pth")
    if not intact(model_file):
        with atomic_path(model_file) as temporary:
            torch.save(states["model"], temporary)
    # ESPnet links after that; k-means, probes and --pretrained take what the link shows.
    link, latest = checkpoint.with_name(".latest.pth"), checkpoint.with_name("latest.pth")
    link.unlink(missing_ok=True)
    link.symlink_to(model_file.name)
    os.replace(link, latest)
