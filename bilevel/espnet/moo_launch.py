"""ESPnet's main with the task of several objectives, run in this process."""

import argparse
import functools
from pathlib import Path
from typing import Any

from bilevel.data.tables import read_scp
from bilevel.espnet.config import read_yaml
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.launch import training_options
from bilevel.espnet.moo_data import SSL, Stream

_STEP = ("grad_norm", "clip", "skipped", "passes", "n_deciding")
_TRAIN_CURVES = {"optim0_lr0": "lr"} | {name: name for name in (*_STEP, "ssl_acc", "ssl_label_perplexity")}
_BY_OBJECTIVE = ("mix_", "grad_norm_", "weight_", "contribution_", "scale_", "cosine_")
_VALID = ("loss", "acc_", "cer_ctc_", "cer_", "wer_")


def write_streams(streams: list[Stream], folder: Path) -> None:
    """Stage 10: entries, lengths and text of each objective; no audio is opened."""
    for stream in streams:
        stream.write(folder / stream.name)


def stream_conf(stream: Stream, folder: Path) -> dict[str, Any]:
    """What the task is told of an objective's data."""
    conf: dict[str, Any] = {"type": DumpSet(stream.train[0]).type}
    conf |= {split: str(folder / stream.name / split) for split in ("train", "valid")}
    if stream.tokens is not None:
        conf |= {"tokens": str(stream.tokens / "tokens.txt"), "token_type": stream.token_type}
        if stream.token_type == "bpe":
            conf["bpemodel"] = str(stream.tokens / "bpe.model")
    return conf


def train(config: Path, args: argparse.Namespace, streams: list[Stream]) -> None:
    """Stage 11: train or resume; then write curves and cost beside the models.

    Raises:
        ValueError: Normalisation by statistics of a whole set, or transcripts that CTC cannot align.
    """
    if read_yaml(config).get("normalize") == "global_mvn":
        raise ValueError(f"{config}: normalize global_mvn: no statistics over several objectives; use utterance_mvn")
    options = training_options(config, args, args.exp_dir, args.stats_dir)
    input_size = DumpSet(streams[0].train[0]).input_size()
    if input_size is not None:
        options += ["--input_size", str(input_size)]
    from bilevel.espnet.moo_task import MultiObjectiveTask
    from bilevel.espnet.pretrained import add_init
    from bilevel.espnet.record import record

    options = add_init(MultiObjectiveTask, options, args)
    _check_ctc(options, input_size, args.exp_dir)
    MultiObjectiveTask.main(cmd=options)
    curves = _TRAIN_CURVES | {f"loss_{stream.name}": f"loss_{stream.name}" for stream in streams}
    record(args.exp_dir, MultiObjectiveTask, curves, {}, prefixes=_BY_OBJECTIVE, valid_prefixes=_VALID)


@functools.cache
def model_files(exp_dir: Path, model: str, objective: str | None) -> tuple[Path, Path]:
    """config.yaml and weights to decode or pack; those of an objective are exported first, once a process."""
    if objective is None:
        return exp_dir / "config.yaml", exp_dir / model
    from bilevel.espnet.moo_export import export

    return export(exp_dir, model, objective)


def _check_ctc(options: list[str], input_size: int | None, exp_dir: Path) -> None:
    import torch

    from bilevel.espnet.ctc_check import check_fit, encoder_length
    from bilevel.espnet.moo_task import MultiObjectiveTask, tokeniser

    args = MultiObjectiveTask.get_parser().parse_args(options)
    with torch.device("meta"):
        model = MultiObjectiveTask.build_model(args)
    frames = encoder_length(model, input_size)
    for name, stream in args.streams.items():
        if name != SSL and model.heads[name].ctc is not None:
            encode, folder = tokeniser(stream), Path(stream["train"])
            texts = read_scp(folder / "text")
            tokens = {key: encode(key, {"text": text})["text"].tolist() for key, text in texts.items()}
            lengths = {key: int(shape.split(",")[0]) for key, shape in read_scp(folder / "shape").items()}
            check_fit(tokens, lengths, frames, exp_dir / f"ctc_too_long_{name}.txt")
