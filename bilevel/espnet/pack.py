"""One archive with all that inference needs, and the proof that nothing is missing."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from espnet2.main_funcs.pack_funcs import pack, unpack

from bilevel.data.files import atomic_path
from bilevel.data.tables import read_scp
from bilevel.espnet.config import read_yaml
from bilevel.espnet.decode import decode
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.inference import load_model
from bilevel.espnet.kmeans import layer_states
from bilevel.espnet.ssl_task import BilevelSSLTask

_FILE_KEYS = ("bpemodel", "non_linguistic_symbols")  # besides these, any *_conf may name files


def pack_model(config: Path, model_file: Path, archive: Path, extra: list[Path], kind: str) -> None:
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


def check_archive(config: Path, model_file: Path, archive: Path, check_dir: Path, kind: str) -> tuple[str, str]:
    """Unpack into an empty folder and try it on the longest utterance of a set, against the original.

    Args:
        config: config.yaml of the training.
        model_file: Its weights.
        archive: What `pack_model` has written.
        check_dir: The set.
        kind: "asr" decodes (greedy CTC, or the attention decoder where there is none), "ssl" encodes.

    Returns:
        (utterance id, hypothesis, or a digest of the states).

    Raises:
        ValueError: The unpacked model cannot be built, or hears something else.
    """
    dump = DumpSet(check_dir.resolve())
    key, expected = _TRIALS[kind](config, model_file, dump)
    with _unpacked(archive.resolve()) as files, contextlib.chdir(files[f"{kind}_train_config"].parent):
        try:
            _, found = _TRIALS[kind](files[f"{kind}_train_config"], files[f"{kind}_model_file"], dump)
        except OSError as error:
            raise ValueError(f"{archive}: incomplete: {error}") from error
    if found != expected:
        raise ValueError(f"{archive}: {VERBS[kind]} {key} as {found!r}, the original model as {expected!r}")
    return key, found


def _decode_longest(config: Path, model_file: Path, dump: DumpSet) -> tuple[str, str]:
    n = len(read_scp(dump.lengths))
    inference: dict[str, Any] = {"decoder": "greedy"}
    if read_yaml(config)["model_conf"].get("ctc_weight") == 0.0:  # no CTC: the attention decoder alone
        inference = {"decoder": "beam", "beam_size": 1, "ctc_weight": 0.0}
    return next(decode(config, model_file, dump, inference, "cpu", (n - 1, n)))


def _encode_longest(config: Path, model_file: Path, dump: DumpSet) -> tuple[str, str]:
    model, _ = load_model(BilevelSSLTask, config, model_file, "cpu")
    key, states = next(layer_states(model, None, dump, "cpu", dump.by_length()[-1:]))
    return key, f"{len(states)} states, SHA-256 {hashlib.sha256(states.tobytes()).hexdigest()[:12]}"


VERBS = {"asr": "decodes", "ssl": "encodes"}
_TRIALS = {"asr": _decode_longest, "ssl": _encode_longest}


@contextlib.contextmanager
def _unpacked(archive: Path) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        files = {key: Path(path) for key, path in unpack(archive, folder).items()}
        outside = [str(path) for path in files.values() if not path.is_relative_to(folder)]
        if outside:
            raise ValueError(f"{archive}: names {', '.join(outside)} outside itself; pack it again")
        yield files
