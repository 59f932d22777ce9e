"""ESPnet's ASR task with a second, unlabelled data stream and a method."""

import argparse
import math
from pathlib import Path
from typing import Any

import espnet2.tasks.asr as asr
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.samplers.build_batch_sampler import build_batch_sampler
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.dataset import ESPnetDataset
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str_or_none

from bilevel.espnet.checkpoint import recover_checkpoint
from bilevel.espnet.encoder import LayerNormConformerEncoder
from bilevel.espnet.iterators import TwoStreamIterFactory
from bilevel.espnet.model import BilevelASRModel
from bilevel.espnet.trainer import BilevelTrainer, build_plan

# ESPnet builds models from its module's registries, so ours are entered there; inference needs them too.
asr.model_choices.classes["bilevel"] = BilevelASRModel
asr.encoder_choices.classes["conformer_layernorm"] = LayerNormConformerEncoder


class BilevelASRTask(asr.ASRTask):
    """ASRTask plus `--unlabelled_*`, `--plan_conf`, `--penalty_conf`, `--stage_lr_conf`."""

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
        group.add_argument("--plan_conf", action=NestedDictAction, default={}, help="bilevel.optim.schedule.Plan")
        group.add_argument("--penalty_conf", action=NestedDictAction, default={}, help="bilevel.optim.schedule.Penalty")
        group.add_argument(
            "--stage_lr_conf",
            action=NestedDictAction,
            default={"explore": 1.0, "joint": 1.0, "finetune": 1.0},
            help="bilevel.optim.schedule.StageRate",
        )
        group.add_argument("--max_skipped_steps", type=int, default=20, help="non-finite steps in a row before a stop")

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
        unlabelled = cls._build_unlabelled(args, distributed_option) if args.unlabelled_scp else None
        if args.num_iters_per_epoch is None:
            # An epoch passes through the longer stream once; the shorter one cycles.
            args.num_iters_per_epoch = max(len(f.sampler) for f in (labelled, unlabelled) if f is not None)
        if args.resume:
            recover_checkpoint(Path(args.output_dir))
        return TwoStreamIterFactory(labelled, unlabelled, build_plan(args), args.num_iters_per_epoch, args.seed)

    @classmethod
    def _build_unlabelled(cls, args: argparse.Namespace, distributed_option: DistributedOption) -> SequenceIterFactory:
        world = distributed_option.dist_world_size if distributed_option.distributed else 1
        sampler = build_batch_sampler(
            type=args.batch_type,
            shape_files=[args.unlabelled_shape_file],
            fold_lengths=args.fold_length[:1],
            batch_size=args.unlabelled_batch_size or args.batch_size,
            batch_bins=args.unlabelled_batch_bins or args.batch_bins,
            sort_in_batch=args.sort_in_batch,
            sort_batch=args.sort_batch,
            drop_last=args.drop_last_iter,
            min_batch_size=world if distributed_option.distributed else args.min_batch_size,
        )
        batches = [batch[distributed_option.dist_rank or 0 :: world] for batch in sampler]
        dataset = ESPnetDataset(
            [(args.unlabelled_scp, "speech", args.unlabelled_type)],
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


def count_params(model: torch.nn.Module) -> int:
    """Trainable parameters."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
