"""Checkpoints that survive a kill, a full disk and a flipped bit; a method's state is beside them."""

import logging
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

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


def save_state(state: dict[str, Any], output_dir: Path, epoch: int) -> None:
    """Write a method's state after an epoch, and keep those of two epochs before: a resume may fall back to them."""
    if not state:
        return
    folder = output_dir / "solver"
    folder.mkdir(exist_ok=True)
    with atomic_path(folder / f"{epoch}epoch.pth") as temporary:
        torch.save(state, temporary)
    for file in folder.glob("*epoch.pth"):
        if int(file.name.removesuffix("epoch.pth")) < epoch - 2:
            file.unlink()


def load_state(output_dir: Path, epoch: int, device: str, of: str) -> dict[str, Any]:
    """A method's state at the end of an epoch.

    Args:
        output_dir: Folder of the training.
        epoch: Number of the epoch, from 1.
        device: Where its tensors go.
        of: What it is the state of, for the message.

    Raises:
        ValueError: It is not there.
    """
    file = output_dir / "solver" / f"{epoch}epoch.pth"
    if not file.exists():
        raise ValueError(
            f"{file}: the state of {of} after epoch {epoch} is missing, so the run cannot go on as it began; restore "
            f"the file, or delete {output_dir} to train from the start"
        )
    return torch.load(file, map_location=device, weights_only=True)
