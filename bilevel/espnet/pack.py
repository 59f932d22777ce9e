"""One archive with all that inference needs, and the proof that nothing is missing."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from espnet2.main_funcs.pack_funcs import pack, unpack

from bilevel.data.files import atomic_path
from bilevel.data.tables import read_scp
from bilevel.espnet.config import read_yaml
from bilevel.espnet.decode import decode
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.inference import load_model
from bilevel.espnet.kmeans import layer_states
from bilevel.espnet.pretrained import WEIGHTS
from bilevel.espnet.ssl_task import BilevelSSLTask

_FILE_KEYS = ("bpemodel", "non_linguistic_symbols")  # besides these, any *_conf may name files


def pack_model(config: Path, model_file: Path, archive: Path, extra: list[Path], kind: str = "asr") -> None:
    """Write a zip archive: config.yaml, weights, and every file that the configuration names.

    The archive is flat and its config names files relative to itself, so it does not matter where the training lay.
    ESPnet's own packing would leave paths outside the current folder as they are.

    Raises:
        ValueError: A file is missing, or two files have one name.
    """
    archive = archive.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {"config.yaml": config}

        def take(path: Path) -> str:
            if sources.setdefault(path.name, path) != path:
                raise ValueError(f"{path} and {sources[path.name]}: two files of one name; rename one of them")
            _copy(path, folder / path.name)
            return path.name

        packed = _map_files(read_yaml(config), take)
        for path in extra:
            take(path)
        (folder / "config.yaml").write_text(yaml.safe_dump(packed, sort_keys=False), encoding="utf-8")
        weights = take(model_file)
        option = sorted(sources.keys() - {"config.yaml", weights})
        with atomic_path(archive) as temporary, contextlib.chdir(folder):
            zipped = Path("packed.zip")
            pack(files={f"{kind}_model_file": weights}, yaml_files={f"{kind}_train_config": "config.yaml"},
                 outpath=zipped, option=option)  # fmt: skip
            shutil.copyfile(zipped, temporary)


def _map_files(config: dict[str, Any], take: Callable[[Path], str]) -> dict[str, Any]:
    """The configuration with each file it names for inference replaced by `take(file)`."""

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: visit(item) for key, item in value.items()}
        if isinstance(value, list):
            return [visit(item) for item in value]
        return take(Path(value)) if isinstance(value, str) and Path(value).is_file() else value

    mapped = {}
    for key, value in config.items():
        if key in _FILE_KEYS and value is not None:
            mapped[key] = take(Path(value))
        else:
            mapped[key] = visit(value) if key.endswith("_conf") else value
    return mapped


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ValueError(f"{source}: no such file, but the model needs it; restore it or run its stage again")
    shutil.copyfile(source, target)


def check_archive(config: Path, model_file: Path, archive: Path, check_dir: Path) -> tuple[str, str]:
    """Unpack into an empty folder and decode the longest utterance of a set there, and with the original.

    Returns:
        (utterance id, hypothesis).

    Raises:
        ValueError: The unpacked model cannot be built, or hears something else.
    """
    dump = DumpSet(check_dir.resolve())
    n = len(read_scp(dump.lengths))
    longest = (n - 1, n)
    greedy = {"decoder": "greedy"}
    key, expected = next(decode(config, model_file, dump, greedy, "cpu", longest))
    with _unpacked(archive.resolve()) as files, contextlib.chdir(files["asr_train_config"].parent):
        try:
            _, found = next(decode(files["asr_train_config"], files["asr_model_file"], dump, greedy, "cpu", longest))
        except OSError as error:
            raise ValueError(f"{archive}: incomplete: {error}") from error
    if found != expected:
        raise ValueError(f"{archive}: decodes {key} as {found!r}, the original model as {expected!r}")
    return key, found


def check_encoder_archive(exp_dir: Path, archive: Path, check_dir: Path) -> str:
    """Unpack into an empty folder and encode the longest utterance of a set there, and with the original.

    Returns:
        The utterance's id.

    Raises:
        ValueError: The unpacked model cannot be built, or gives other states.
    """
    dump = DumpSet(check_dir.resolve())
    longest = dump.by_length()[-1:]
    expected = _states(exp_dir, WEIGHTS, dump, longest)
    with _unpacked(archive.resolve()) as files, contextlib.chdir(files["ssl_train_config"].parent):
        found = _states(files["ssl_train_config"].parent, files["ssl_model_file"].name, dump, longest)
    if not np.array_equal(found, expected):
        raise ValueError(f"{archive}: encodes {longest[0]} to other states than the original model")
    return longest[0]


def _states(exp_dir: Path, weights: str, dump: DumpSet, keys: list[str]) -> np.ndarray:
    model = load_model(BilevelSSLTask, exp_dir, weights, "cpu")
    return next(layer_states(model, None, dump, "cpu", keys))[1]


@contextlib.contextmanager
def _unpacked(archive: Path) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        files = {key: Path(path) for key, path in unpack(archive, folder).items()}
        outside = [str(path) for path in files.values() if not path.is_relative_to(folder)]
        if outside:
            raise ValueError(f"{archive}: names {', '.join(outside)} outside itself; pack it again")
        yield files
