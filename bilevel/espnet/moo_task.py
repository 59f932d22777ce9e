"""ESPnet's task for recognition and translation of several languages with one encoder."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import espnet2.tasks.asr as asr
import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.tasks.abs_task import optim_classes
from espnet2.torch_utils.initialize import initialize
from espnet2.train.class_choices import ClassChoices
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.preprocessor import CommonPreprocessor
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import float_or_none

from bilevel.data.sources import batch_shares
from bilevel.data.tables import read_lines, read_scp
from bilevel.espnet import task as asr_task  # enters our encoder and front-end into ESPnet's registries
from bilevel.espnet.base_task import SpeechTask
from bilevel.espnet.checkpoint import recover_checkpoint
from bilevel.espnet.config import merge
from bilevel.espnet.moo_data import SSL
from bilevel.espnet.moo_iterators import ChainIterFactory, ObjectivesIterFactory
from bilevel.espnet.moo_model import MultiObjectiveModel
from bilevel.espnet.moo_step import MultiObjectiveTrainer, active, batches_per_step, build_levels
from bilevel.espnet.parts import build_parts

_MODELS = ClassChoices("model", classes={"multi_objective": MultiObjectiveModel}, default="multi_objective")


class MultiObjectiveTask(SpeechTask):
    """Front-end to encoder of the recognition task, a head for each objective, and levels of objectives.

    `--streams` is, by objective, {type, train, valid, tokens, token_type, bpemodel}: what `moo_launch` writes.
    """

    trainer = MultiObjectiveTrainer
    class_choices_list = (
        asr.frontend_choices,
        asr.specaug_choices,
        asr.normalize_choices,
        asr.preencoder_choices,
        asr.encoder_choices,
        _MODELS,
    )

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options of model and data."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Data related")
        group.add_argument("--streams", action=NestedDictAction, default={}, help="data and tokens of each objective")
        group.add_argument("--heads", action=NestedDictAction, default={}, help="asr, st or an objective -> its head")
        group.add_argument(
            "--head_lr_factor", type=float, default=1.0, help="learning rate of heads over the encoder's"
        )
        group.add_argument(
            "--stream_temperature", type=float_or_none, default=None,
            help="batches of a task's languages: none: of one size; 1: in proportion to hours; more: more equal",
        )  # fmt: skip

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Text, where the objective predicts it."""
        return ("text",)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> MultiObjectiveModel:
        """The model of a configuration; token lists are read into it, so that config.yaml needs no other file."""
        parts = build_parts(args)
        specaug = None
        if args.specaug is not None:
            specaug = asr.specaug_choices.get_class(args.specaug)(**args.specaug_conf)
        heads = {}
        for name, stream in args.streams.items():
            if name != SSL:
                if isinstance(stream["tokens"], str):
                    stream["tokens"] = list(read_lines(Path(stream["tokens"])))
                heads[name] = build_head(stream["tokens"], parts.encoder.output_size(), head_conf(args.heads, name))
        conf = dict(args.model_conf)
        if SSL not in args.streams:
            conf.pop("ssl", None)
        model = MultiObjectiveModel(parts, specaug, heads, **conf)
        if args.init is not None:
            initialize(model, args.init)
        return model

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
        """Encoder first, then heads with their own learning rate.

        Raises:
            ValueError: Options of ESPnet's own optimizer set-up beside a rate for heads.
        """
        if args.head_lr_factor == 1:
            return super().build_optimizers(args, model)
        if args.exclude_weight_decay or args.sharded_ddp:
            raise ValueError("head_lr_factor: not together with exclude_weight_decay or sharded_ddp; set it to 1")
        heads = [p for several in model.head_params().values() for p in several]
        rate = args.optim_conf["lr"] * args.head_lr_factor
        groups = [{"params": list(model.shared_params().values())}, {"params": heads, "lr": rate}]
        return [optim_classes[args.optim](groups, **args.optim_conf)]

    @classmethod
    def build_iter_factory(
        cls,
        args: argparse.Namespace,
        distributed_option: DistributedOption,
        mode: str,
        kwargs: dict[str, Any] | None = None,
    ) -> AbsIterFactory:
        """One stream an objective; in validation one objective after another."""
        split = "train" if mode == "train" else "valid"
        shares = batch_factors(args.streams, args.stream_temperature) if split == "train" else {}
        factories = {}
        for name, stream in args.streams.items():
            folder = Path(stream[split])
            data = [(str(folder / "scp"), "speech", stream["type"])]
            if name != SSL:
                data.append((str(folder / "text"), "text", "text"))
            bins, size = args.batch_bins, args.batch_size
            if split == "valid":
                bins, size = args.valid_batch_bins or bins, args.valid_batch_size or size
            factories[name] = asr_task.stream_factory(
                args,
                distributed_option,
                data,
                folder / "shape",
                batch_bins=max(1, round(bins * shares.get(name, 1.0))),
                batch_size=max(1, round(size * shares.get(name, 1.0))),
                preprocess=tokeniser(stream) if name != SSL else None,
            )
        if split == "valid":
            return ChainIterFactory(factories)
        if args.resume:
            recover_checkpoint(Path(args.output_dir))
        return cls._training_factory(args, factories)

    @classmethod
    def _training_factory(
        cls, args: argparse.Namespace, factories: Mapping[str, SequenceIterFactory]
    ) -> ObjectivesIterFactory:
        """Batches by what the levels take."""
        with torch.device("meta"):
            levels = build_levels(cls.build_model(args), args.moo_conf, args.max_epoch)
        for level in levels.levels:
            logging.info(f"level {level.name}: {', '.join(level.objectives)}")
        n_batches = batches_per_step(levels, args.moo_conf)
        factory = ObjectivesIterFactory(
            factories, n_batches, lambda epoch: active(levels, epoch), args.num_iters_per_epoch, args.seed
        )
        args.num_iters_per_epoch = factory.n_steps
        return factory


def head_conf(heads: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Settings of an objective's head under ESPnet's names: its task's, then its own.

    Raises:
        ValueError: There are none for its task, or an option that is not a head's.
    """
    task = name.split("_")[0]
    if task not in heads:
        raise ValueError(f"heads: nothing for {task}, which objective {name} needs; found {', '.join(heads) or 'none'}")
    conf = merge({"decoder": None, "decoder_conf": {}, "ctc_conf": {}, "model_conf": {}}, heads[task])
    conf = merge(conf, heads.get(name) or {})
    unknown = sorted(conf.keys() - {"decoder", "decoder_conf", "ctc_conf", "model_conf"})
    if unknown:
        raise ValueError(f"heads: {unknown[0]}: expected decoder, decoder_conf, ctc_conf or model_conf")
    if conf["decoder"] in (None, "none"):
        conf |= {"decoder": None, "decoder_conf": {}}
    return {"decoder_conf": {}} | conf


def build_head(tokens: list[str], encoder_size: int, conf: Mapping[str, Any]) -> ESPnetASRModel:
    """ESPnet's recognition model without what comes before the decoder; its features are the encoder's states.

    Raises:
        ValueError: A blank that is not unit 0.
    """
    if tokens[0] != "<blank>":
        raise ValueError(f"token list starts with {tokens[0]!r}: unit 0 must be <blank>")
    absent = ("frontend", "specaug", "normalize", "preencoder", "encoder", "postencoder", "init")
    own = {"token_list": tokens, "input_size": encoder_size, "model": "espnet"}
    return asr.ASRTask.build_model(argparse.Namespace(**dict.fromkeys(absent), **own, **conf))


def tokeniser(stream: Mapping[str, Any]) -> CommonPreprocessor:
    """Text to token ids."""
    return CommonPreprocessor(
        train=False, token_type=stream["token_type"], token_list=stream["tokens"], bpemodel=stream.get("bpemodel")
    )


def batch_factors(streams: Mapping[str, Mapping[str, Any]], temperature: float | None) -> dict[str, float]:
    """What each objective's batch is times `batch_bins`: 1 on average over the languages of a task.

    Args:
        streams: The streams.
        temperature: None: all alike, as in the paper; see `batch_shares`.
    """
    if temperature is None:
        return {}
    tasks: dict[str, dict[str, float]] = {}
    for name, stream in streams.items():
        shapes = read_scp(Path(stream["train"]) / "shape").values()
        tasks.setdefault(name.split("_")[0], {})[name] = float(sum(int(shape.split(",")[0]) for shape in shapes))
    return {
        name: share * len(sizes) for sizes in tasks.values() for name, share in batch_shares(sizes, temperature).items()
    }
