"""A tiny corpus and a tiny model for the tests of this folder; also imported by the processes of test_distributed."""

import argparse
import copy
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter

from bilevel.espnet.iterators import mask_seeds
from bilevel.espnet.task import BilevelASRTask
from bilevel.espnet.trainer import BilevelTrainer
from bilevel.testing.audio import tones

TOKENS = ("<blank>", "<unk>", "<space>", *"abcdef", "<sos/eos>")
SETS = {"train": 8, "unlab": 10, "dev": 3}
CONFIG = {
    "model": "bilevel",
    "model_conf": {
        "ctc_weight": 1.0,
        "ssl_conf": {"codebook_size": 24, "codebook_dim": 4, "p_mask": 0.1, "mask_span_frames": 8},
    },
    "frontend": "default",
    "frontend_conf": {"n_fft": 400, "win_length": 400, "hop_length": 160, "fs": "16k", "n_mels": 20, "center": False},
    "specaug": None,
    "normalize": "utterance_mvn",
    "encoder": "conformer_layernorm",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "num_blocks": 2,
        "linear_units": 24,
        "cnn_module_kernel": 7,
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
        "input_layer": "conv2d",
        "normalize_before": True,
        "macaron_style": True,
        "use_cnn_module": True,
        "rel_pos_type": "latest",
        "pos_enc_layer_type": "rel_pos",
        "selfattention_layer_type": "rel_selfattn",
    },
    "decoder": "none",
    "optim": "adamw",
    "optim_conf": {"lr": 0.003},
    "plan_conf": {"explore": 1 / 3, "joint": 1 / 3},
    "batch_type": "unsorted",
    "batch_size": 3,
    "max_epoch": 4,
    "num_iters_per_epoch": 6,
    "grad_clip": 5.0,
    "unused_parameters": True,
    "num_workers": 0,
    "num_att_plot": 0,
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 2,
    "use_matplotlib": False,
    "use_tensorboard": False,
}


class Corpus:
    """Dump directories train, unlab and dev, shape files and a token list below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(0)
        self.text: dict[str, str] = {}
        self.speech: dict[str, np.ndarray] = {}
        self.ids = {name: [f"{name}-{i}" for i in range(n)] for name, n in SETS.items()}
        for name, ids in self.ids.items():
            (root / name).mkdir()
            for i, key in enumerate(ids):
                words = ["".join(rng.choice(list("abcdef"), 3 + i % 4)) for _ in range(2)]
                self.text[key], path = " ".join(words), root / f"{key}.wav"
                soundfile.write(path, tones(self.text[key]), 16000)
                self.speech[key] = soundfile.read(path, dtype="float32")[0]
            self._write(f"{name}/wav.scp", {k: root / f"{k}.wav" for k in ids})
            self._write(f"{name}/text", {k: self.text[k] for k in ids})
            self._write(f"{name}/utt2num_samples", {k: len(self.speech[k]) for k in ids})
            stats = {"train": "stats/train", "dev": "stats/valid", "unlab": "stats/unlabelled"}[name]
            self._write(f"{stats}/speech_shape", {k: len(self.speech[k]) for k in ids})
            self._write(f"{stats}/text_shape", {k: f"{len(self.text[k])},{len(TOKENS)}" for k in ids})
        self.token_list = root / "tokens.txt"
        self.token_list.write_text("\n".join(TOKENS) + "\n")

    def _write(self, name: str, table: dict) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text("".join(f"{key} {value}\n" for key, value in table.items()))

    def upper(self, ids: list[str]) -> dict[str, torch.Tensor]:
        """A labelled batch, as the iterator makes it."""
        units = [torch.tensor([TOKENS.index("<space>" if c == " " else c) for c in self.text[k]]) for k in ids]
        text = torch.nn.utils.rnn.pad_sequence(units, batch_first=True, padding_value=-1)
        return self._speech(ids) | {"text": text, "text_lengths": torch.tensor([len(u) for u in units])}

    def lower(self, ids: list[str]) -> dict[str, torch.Tensor]:
        """An unlabelled batch, as the iterator makes it."""
        return self._speech(ids) | {"seeds": mask_seeds(ids, 0, 0)}

    def _speech(self, ids: list[str]) -> dict[str, torch.Tensor]:
        arrays = [torch.from_numpy(self.speech[k]) for k in ids]
        speech = torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)
        return {"speech": speech, "speech_lengths": torch.tensor([len(a) for a in arrays])}


class Kit:
    """Builds models and runs epochs without ESPnet's main."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        config = corpus.root / "config.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        options = ["--config", str(config), "--token_list", str(corpus.token_list), "--token_type", "char"]
        self._args = BilevelASRTask.get_parser().parse_args([*options, "--output_dir", str(corpus.root / "out")])

    def args(self, **changes) -> argparse.Namespace:
        """Parsed options of a training; nested mappings are merged."""
        args = copy.deepcopy(self._args)
        for name, value in changes.items():
            old = vars(args)[name]
            setattr(args, name, old | value if isinstance(value, dict) and name.endswith("_conf") else value)
        return args

    def model(self, **changes):
        """A model with fixed initial values."""
        torch.manual_seed(0)
        return BilevelASRTask.build_model(self.args(**changes))

    def plan(self, explore: float, joint: float, n_steps: int, **changes) -> argparse.Namespace:
        """Options of a training of one epoch with these stages."""
        plan_conf = {"explore": explore, "joint": joint}
        return self.args(max_epoch=1, num_iters_per_epoch=n_steps, **({"plan_conf": plan_conf} | changes))

    def steps(self, args: argparse.Namespace, upper_ids=("train-0", "train-3"), lower_ids=("unlab-1", "unlab-2")):
        """Batches for all steps of a training, each level there where the plan takes it; lists of ids by step cycle."""
        from bilevel.espnet.trainer import build_plan

        plan, found = build_plan(args), []
        for step in range(plan.n_steps):
            stage, batch = plan.stage(step), {}
            if stage != "explore":
                batch["upper"] = self.corpus.upper(list(upper_ids))
            if stage != "finetune":
                batch["lower"] = self.corpus.lower(list(lower_ids))
            found.append(([*upper_ids, *lower_ids], batch))
        return found

    def epoch(
        self, model, steps, args, optimizer, scheduler=None, scaler=None, epoch=1, reporter=None, distributed=None,
        trainer=BilevelTrainer,
    ) -> tuple[bool, Reporter]:  # fmt: skip
        """One epoch of a trainer over ready batches."""
        reporter = reporter or Reporter()
        reporter.set_epoch(epoch)
        Path(args.output_dir).mkdir(exist_ok=True)  # for the state of the solver
        with reporter.observe("train") as sub_reporter:
            all_skipped = trainer.train_one_epoch(
                model=model,
                iterator=steps,
                optimizers=[optimizer],
                schedulers=[scheduler],
                scaler=scaler,
                reporter=sub_reporter,
                summary_writer=None,
                options=trainer.build_options(args),
                distributed_option=distributed or DistributedOption(),
            )
        return all_skipped, reporter


class Recorder(torch.optim.SGD):
    """Plain gradient descent that keeps the gradients and learning rates of its steps."""

    def __init__(self, model: torch.nn.Module, lr: float = 0.0) -> None:
        super().__init__(model.parameters(), lr=lr)
        self.names = [name for name, _ in model.named_parameters()]
        self.seen: list[dict[str, torch.Tensor | None]] = []
        self.lrs: list[float] = []

    def step(self, closure=None):
        group = self.param_groups[0]
        grads = (None if p.grad is None else p.grad.detach().clone() for p in group["params"])
        self.seen.append(dict(zip(self.names, grads, strict=True)))
        self.lrs.append(group["lr"])
        return super().step(closure)


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
