"""ESPnet's ASR task with a second, unlabelled data stream and a method."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import espnet2.tasks.asr as asr
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.samplers.build_batch_sampler import build_batch_sampler
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.dataset import ESPnetDataset
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.types import int_or_none, str_or_none

from bilevel.espnet.checkpoint import recover_checkpoint
from bilevel.espnet.encoder import LayerNormConformerEncoder
from bilevel.espnet.frontend import DeltaStackFrontend
from bilevel.espnet.iterators import TwoStreamIterFactory
from bilevel.espnet.model import BilevelASRModel
from bilevel.espnet.trainer import BilevelTrainer, build_plan

# ESPnet builds models from its module's registries, so ours are entered there; inference needs them too.
asr.model_choices.classes["bilevel"] = BilevelASRModel
asr.encoder_choices.classes["conformer_layernorm"] = LayerNormConformerEncoder
asr.frontend_choices.classes["delta_stack"] = DeltaStackFrontend


class BilevelASRTask(asr.ASRTask):
    """ASRTask plus `--unlabelled_*` and the options of `BilevelTrainer`."""

    trainer = BilevelTrainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """ESPnet's options and those of the bilevel method."""
        super().add_task_arguments(parser)
        group = parser.add_argument_group("Bilevel related")
        group.add_argument("--unlabelled_scp", type=str_or_none, default=None, help="wav.scp or feats.scp")
        group.add_argument("--unlabelled_type", type=str, default="sound", help="sound or kaldi_ark")
        group.add_argument("--unlabelled_shape_file", type=str_or_none, default=None)
        group.add_argument("--unlabelled_batch_bins", type=int_or_none, default=None, help="default: batch_bins")
        group.add_argument("--unlabelled_batch_size", type=int_or_none, default=None, help="default: batch_size")

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> BilevelASRModel:
        """ESPnet's; the model is told the size of extracted features, and the dumped config.yaml keeps it."""
        if args.input_size is not None and args.model == "bilevel":
            args.model_conf["input_size"] = args.input_size
        return super().build_model(args)

    @classmethod
    def build_iter_factory(
        cls,
        args: argparse.Namespace,
        distributed_option: DistributedOption,
        mode: str,
        kwargs: dict[str, Any] | None = None,
    ) -> AbsIterFactory:
        """The two-stream factory for training, ESPnet's for the rest."""
        if mode != "train":
            return super().build_iter_factory(args, distributed_option, mode, kwargs)
        labelled = super().build_iter_factory(args, distributed_option, mode, kwargs)
        unlabelled = None
        if args.unlabelled_scp:
            unlabelled = stream_factory(
                args,
                distributed_option,
                [(args.unlabelled_scp, "speech", args.unlabelled_type)],
                args.unlabelled_shape_file,
                batch_bins=args.unlabelled_batch_bins or args.batch_bins,
                batch_size=args.unlabelled_batch_size or args.batch_size,
            )
        if args.num_iters_per_epoch is None:
            # An epoch passes through the longer stream once; the shorter one cycles.
            args.num_iters_per_epoch = max(len(f.sampler) for f in (labelled, unlabelled) if f is not None)
        if args.resume:
            recover_checkpoint(Path(args.output_dir))
        return TwoStreamIterFactory(labelled, unlabelled, build_plan(args), args.num_iters_per_epoch, args.seed)


def stream_factory(
    args: argparse.Namespace,
    distributed_option: DistributedOption,
    data: Sequence[tuple[str, str, str]],
    shape_file: Path | str,
    batch_bins: int,
    batch_size: int,
    preprocess: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None,
) -> SequenceIterFactory:
    """ESPnet's batches of one data set, for a stream beside the training set; each process gets its share of a batch.

    Args:
        args: The task's options.
        distributed_option: Processes.
        data: (path, name, type) as ESPnet takes them.
        shape_file: Lengths of the utterances that the stream consists of.
        batch_bins: Input of a batch, for batch types that count it.
        batch_size: Utterances of a batch, for the others.
        preprocess: ESPnet's function of an utterance's id and data, for text.
    """
    world = distributed_option.dist_world_size if distributed_option.distributed else 1
    sampler = build_batch_sampler(
        type=args.batch_type,
        shape_files=[str(shape_file)],
        fold_lengths=args.fold_length[:1],
        batch_size=batch_size,
        batch_bins=batch_bins,
        sort_in_batch=args.sort_in_batch,
        sort_batch=args.sort_batch,
        drop_last=args.drop_last_iter,
        min_batch_size=world if distributed_option.distributed else args.min_batch_size,
    )
    batches = [batch[distributed_option.dist_rank or 0 :: world] for batch in sampler]
    dataset = ESPnetDataset(
        list(data),
        preprocess=preprocess,
        float_dtype=args.train_dtype,
        max_cache_size=args.max_cache_size,
        max_cache_fd=args.max_cache_fd,
    )
    return SequenceIterFactory(
        dataset=dataset,
        batches=batches,
        seed=args.seed,
        shuffle=True,
        num_workers=args.num_workers,
        collate_fn=CommonCollateFn(float_pad_value=0.0, int_pad_value=-1),
        pin_memory=args.ngpu > 0,
    )
