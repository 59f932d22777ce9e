"""What our tasks beside recognition share: speech in, text only where a stream has its own tokens."""

import argparse
from collections.abc import Callable, Collection
from typing import Any

from espnet2.tasks.abs_task import AbsTask
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.utils.types import int_or_none, str_or_none


class SpeechTask(AbsTask):
    """An `AbsTask` on utterances of speech whose text, if any, is not the task's to tokenise."""

    num_optimizers = 1

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Initial values, the size of extracted features, and the classes that the task is built of."""
        group = parser.add_argument_group("Task related")
        group.add_argument("--init", type=str_or_none, default=None, help="as in ESPnet")
        group.add_argument("--input_size", type=int_or_none, default=None, help="of extracted features")
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool) -> Callable[[Collection], Any]:
        """ESPnet's plain one."""
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> None:
        """Nothing to prepare."""

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Speech."""
        return ("speech",)
