"""Trained models and batches of a set, for decoding, clustering and probing."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from espnet2.tasks.abs_task import AbsTask
from torch import Tensor

from bilevel.data.archive import read_matrix
from bilevel.data.tables import read_scp
from bilevel.espnet.dump import DumpSet

BATCH_SEC = 60


def load_model(
    task: type[AbsTask], config: Path, file: Path, device: str
) -> tuple[torch.nn.Module, argparse.Namespace]:
    """A trained model, in evaluation mode, and the options that it was trained with.

    Args:
        task: Its task.
        config: config.yaml of the training.
        file: The weights.
        device: "cpu" or "cuda".

    Raises:
        ValueError: A file is missing, or the weights lack tensors of the configuration; ESPnet would go on with random
            ones.
    """
    for needed in (config, file):
        if not needed.exists():
            raise ValueError(f"{needed}: no such file; expected config.yaml and weights of a finished training")
    model, args = task.build_model_from_file(config, file, device)
    check_loaded(model, file)
    return model.eval(), args


def check_loaded(model: torch.nn.Module, file: Path) -> None:
    """ESPnet loads weights with strict=False; a model that kept its random initial values must not be used.

    Raises:
        ValueError: The file lacks tensors of the model.
    """
    lacking = sorted(set(model.state_dict()) - set(torch.load(file, map_location="cpu", weights_only=True, mmap=True)))
    if lacking:
        raise ValueError(
            f"{file}: lacks {len(lacking)} tensors of the configuration ({', '.join(lacking[:3])}, ...); "
            "use the config.yaml of the same training"
        )


def batches(
    dump: DumpSet, device: str, keys: Sequence[str] | None = None
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Batches of about a minute at 16 kHz, padding included.

    Args:
        dump: The set.
        device: Where the tensors go.
        keys: Utterances in the order wanted; by default all, shortest first, which pads least.

    Yields:
        (ids, (B, S) samples or (B, T, F) features, (B,) lengths).
    """
    lengths = {key: int(n) for key, n in read_scp(dump.lengths).items()}
    ids = dump.by_length() if keys is None else list(keys)
    entries = read_scp(dump.scp)
    per_batch = BATCH_SEC * (16000 if dump.type == "sound" else 100)
    while ids:
        n, longest = 1, lengths[ids[0]]
        while n < len(ids) and max(longest, lengths[ids[n]]) * (n + 1) <= per_batch:
            longest = max(longest, lengths[ids[n]])
            n += 1
        chosen, ids = ids[:n], ids[n:]
        arrays = [torch.as_tensor(load(entries[key], dump.type)) for key in chosen]
        lens = torch.tensor([len(array) for array in arrays], device=device)
        yield chosen, torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True).to(device), lens


def load(entry: str, data_type: str) -> np.ndarray:
    """Samples (S,) or features (T, F) of an entry of wav.scp or feats.scp in a dump."""
    if data_type == "kaldi_ark":
        return read_matrix(entry)
    samples, _ = soundfile.read(entry, dtype="float32")
    return samples
