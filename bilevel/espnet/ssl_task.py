"""ESPnet's task for pre-training, on one or several data sources."""

import argparse
from pathlib import Path
from typing import Any

import espnet2.tasks.asr as asr
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.torch_utils.initialize import initialize
from espnet2.train.class_choices import ClassChoices
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.types import str_or_none

from bilevel.data.sources import batch_shares
from bilevel.data.tables import read_scp
from bilevel.espnet import task as asr_task  # enters our encoder and front-end into ESPnet's registries
from bilevel.espnet.base_task import SpeechTask
from bilevel.espnet.checkpoint import recover_checkpoint
from bilevel.espnet.parts import build_parts
from bilevel.espnet.sources import SourcesIterFactory
from bilevel.espnet.ssl_model import BilevelSSLModel
from bilevel.espnet.trainer import BilevelTrainer

_MODELS = ClassChoices("model", classes={"bilevel_ssl": BilevelSSLModel}, default="bilevel_ssl")


class BilevelSSLTask(SpeechTask):
    """Pre-training: the recognition task's front-end, normalisation and encoder, our objectives and trainer."""

    trainer = BilevelTrainer
    class_choices_list = (
        asr.frontend_choices,
        asr.normalize_choices,
        asr.preencoder_choices,
        asr.encoder_choices,
        _MODELS,
    )

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options of model, data and sources."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Data related")
        group.add_argument("--source_shape_dir", type=str_or_none, default=None, help="shape files of the sources")
        group.add_argument(
            "--source_temperature", type=float, default=1.0, help="1: batches in proportion to hours; more: more equal"
        )

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Frame labels from outside."""
        return ("targets",)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> BilevelSSLModel:
        """The model of a configuration."""
        parts = build_parts(args)
        model = BilevelSSLModel(
            parts.frontend, parts.normalize, parts.preencoder, parts.encoder, parts.input_size, **args.model_conf
        )
        if args.init is not None:
            initialize(model, args.init)
        return model

    @classmethod
    def build_iter_factory(
        cls,
        args: argparse.Namespace,
        distributed_option: DistributedOption,
        mode: str,
        kwargs: dict[str, Any] | None = None,
    ) -> AbsIterFactory:
        """One stream for each source in training, ESPnet's for the rest."""
        if mode != "train":
            return super().build_iter_factory(args, distributed_option, mode, kwargs)
        if args.solver != "local":
            raise ValueError(f"solver {args.solver}: pre-training takes a batch of every source, which is for local")
        folder = Path(args.source_shape_dir)
        files = {file.name: file for file in sorted(folder.iterdir()) if file.name[0] != "."}
        sizes = {
            name: float(sum(int(shape.split(",")[0]) for shape in read_scp(file).values()))
            for name, file in files.items()
        }
        shares = batch_shares(sizes, args.source_temperature)
        sources = {
            name if len(files) > 1 else "": asr_task.stream_factory(
                args,
                distributed_option,
                args.train_data_path_and_name_and_type,
                file,
                batch_bins=max(1, round(args.batch_bins * shares[name])),
                batch_size=max(1, round(args.batch_size * shares[name])),
            )
            for name, file in files.items()
        }
        if args.resume:
            recover_checkpoint(Path(args.output_dir))
        factory = SourcesIterFactory(sources, args.num_iters_per_epoch, args.seed)
        args.num_iters_per_epoch = factory.n_steps
        return factory
