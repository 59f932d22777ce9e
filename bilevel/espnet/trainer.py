"""ESPnet's Trainer with a bilevel step."""

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from espnet2.torch_utils.device_funcs import to_device
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import SubReporter
from espnet2.train.trainer import Trainer, autocast_args
from espnet2.utils.build_dataclass import build_dataclass
from espnet2.utils.nested_dict_action import NestedDictAction

from bilevel.espnet.checkpoint import set_aside
from bilevel.espnet.options import BilevelTrainerOptions
from bilevel.espnet.step import Moment, SolverStep, Step
from bilevel.optim.schedule import Plan, StageRate


def build_plan(options: BilevelTrainerOptions | argparse.Namespace) -> Plan:
    """The stages of a training of max_epoch epochs."""
    n = options.num_iters_per_epoch
    return Plan(n_steps=n * options.max_epoch, n_steps_per_epoch=n, **options.plan_conf)


class BilevelTrainer(Trainer):
    """One `train_one_epoch` for all methods; everything else is ESPnet's."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options of the method, for every task with this trainer."""
        group = parser.add_argument_group("Bilevel related")
        group.add_argument("--plan_conf", action=NestedDictAction, default={}, help="bilevel.optim.schedule.Plan")
        group.add_argument("--solver", type=str, default="penalty", help="a module of bilevel.optim")
        group.add_argument("--solver_conf", action=NestedDictAction, default={}, help="arguments of the solver")
        group.add_argument("--penalty_conf", action=NestedDictAction, default={}, help="bilevel.optim.schedule.Penalty")
        group.add_argument(
            "--stage_lr_conf",
            action=NestedDictAction,
            default={"explore": 1.0, "joint": 1.0, "finetune": 1.0},
            help="bilevel.optim.schedule.StageRate",
        )
        group.add_argument("--max_skipped_steps", type=int, default=20, help="non-finite steps in a row before a stop")
        group.add_argument("--health_conf", action=NestedDictAction, default={}, help="bilevel.espnet.health.Health")

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> BilevelTrainerOptions:
        """Options of the training."""
        return build_dataclass(BilevelTrainerOptions, args)

    @classmethod
    def build_step(
        cls, options: BilevelTrainerOptions, model: torch.nn.Module, autocast: Callable[[], Any], distributed: bool
    ) -> Step:
        """What makes the gradients."""
        return SolverStep(options, model, autocast, distributed)

    @classmethod
    def train_one_epoch(
        cls,
        model: torch.nn.Module,
        iterator: Any,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        reporter: SubReporter,
        summary_writer: Any,
        options: BilevelTrainerOptions,
        distributed_option: DistributedOption,
    ) -> bool:
        """One epoch of the plan. Returns whether every step was skipped."""
        plan, epoch = build_plan(options), reporter.get_epoch()
        stage_rate = StageRate(**options.stage_lr_conf)
        device = "cuda" if options.ngpu > 0 else "cpu"
        distributed = distributed_option.distributed
        amp = scaler is not None and options.ngpu > 0
        method = cls.build_step(
            options, model, lambda: torch.autocast(device, enabled=amp, **autocast_args), distributed
        )
        method.load(Path(options.output_dir), epoch - 1, device)
        log_interval = options.log_interval or max(len(iterator) // 20, 10)
        step = (epoch - 1) * options.num_iters_per_epoch
        n_skipped_in_row, all_skipped = 0, True
        model.train()
        # A trailing partial group of the last epoch must not leak into this one.
        for optimizer in optimizers:
            optimizer.zero_grad()
        start_time = time.perf_counter()
        for i, (utt_ids, batch) in enumerate(reporter.measure_iter_time(iterator, "iter_time"), 1):
            batch = on_device(batch, device)
            if options.no_forward_run:
                all_skipped = False
                reporter.next()
                continue
            progress = plan.progress(step)
            rate = stage_rate.factor(plan.stage(step), progress)
            moment = Moment(
                step=step,
                epoch=step / options.num_iters_per_epoch,
                progress=progress,
                rate=rate * _relative_rate(optimizers[0]),
                closes_update=i % options.accum_grad == 0,
            )
            with reporter.measure_time("forward_backward_time"):
                report = method.backward(batch, moment, scaler.scale if scaler is not None else lambda loss: loss)
            method.register(batch, reporter, step)
            if moment.closes_update:
                stepped = cls._update(model, optimizers, schedulers, scaler, options, rate, report, reporter)
                reporter.register({"skipped": 0.0 if stepped else 1.0})
                if stepped:
                    method.updated(batch)
                n_skipped_in_row = 0 if stepped else n_skipped_in_row + 1
                all_skipped &= not stepped
                if not stepped:
                    logging.warning(f"step {step}: non-finite gradient, both levels skipped; utterances {utt_ids}")
                if n_skipped_in_row > options.max_skipped_steps:
                    raise RuntimeError(
                        f"step {step}: {n_skipped_in_row} non-finite steps in a row; lower the learning rate, or "
                        f"look at the utterances named in the log (last: {utt_ids[:3]})"
                    )
                reporter.register({"train_time": time.perf_counter() - start_time})
                start_time = time.perf_counter()
            step += 1
            reporter.next()
            if i % log_interval == 0:
                logging.info(reporter.log_message(-log_interval))
                if summary_writer is not None:
                    reporter.tensorboard_add_scalar(summary_writer, -log_interval)
        if not distributed or distributed_option.dist_rank == 0:
            method.save(Path(options.output_dir), epoch)
        return all_skipped

    @classmethod
    def _update(
        cls,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        options: BilevelTrainerOptions,
        rate: float,
        report: dict[str, float],
        reporter: SubReporter,
    ) -> bool:
        """Clip, step, advance the schedule. A non-finite gradient of either level skips the step for both."""
        if scaler is not None:
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
        scale = scaler.get_scale() if scaler is not None else 1.0
        grad_norm = torch.nn.utils.get_total_norm(
            [p.grad for p in model.parameters() if p.grad is not None], options.grad_clip_type
        )
        finite = bool(torch.isfinite(grad_norm))
        if finite:
            if options.grad_clip > 0:
                torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), options.grad_clip, grad_norm)
            clipped = 100.0 if 0 < options.grad_clip < grad_norm else 0.0
            reporter.register({"grad_norm": grad_norm, "clip": clipped, "loss_scale": scale} | report)
        with reporter.measure_time("optim_step_time"):
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                with _scaled_rate(optimizer, rate):
                    reporter.register({f"optim0_lr{j}": group["lr"] for j, group in enumerate(optimizer.param_groups)})
                    if finite:
                        # Not left to the scaler: ESPnet's is disabled, and lets everything pass, without a GPU.
                        scaler.step(optimizer) if scaler is not None else optimizer.step()
                if isinstance(scheduler, AbsBatchStepScheduler):
                    scheduler.step()
                optimizer.zero_grad()
        if scaler is not None:
            scaler.update()  # once, after all steps: twice would unscale the next gradients wrongly
        return finite

    @classmethod
    def validate_one_epoch(cls, model: torch.nn.Module, reporter: SubReporter, options: Any, **kwargs: Any) -> None:
        """Validate on the upper level, then put the last checkpoint aside."""
        super().validate_one_epoch(model=model, reporter=reporter, options=options, **kwargs)
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            set_aside(Path(options.output_dir))


def on_device(data: Any, device: str) -> Any:
    """ESPnet's `to_device`; seeds stay with the host, which chooses the masked frames (`bilevel.models.rows`)."""
    if isinstance(data, dict):
        return {name: value if name == "seeds" else on_device(value, device) for name, value in data.items()}
    return [on_device(part, device) for part in data] if isinstance(data, list) else to_device(data, device)


def _relative_rate(optimizer: torch.optim.Optimizer) -> float:
    """Learning rate over its initial value, as ESPnet's scheduler has set it."""
    initial = optimizer.defaults["lr"]
    return optimizer.param_groups[0]["lr"] / initial if initial else 1.0


@contextlib.contextmanager
def _scaled_rate(optimizer: torch.optim.Optimizer, factor: float):
    """Learning rates of a stage: those of the schedule times a factor. One set of moments serves all stages."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
