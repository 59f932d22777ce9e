"""Cost of a BL-JUST step against its supervised and its self-supervised step run apart.

    python bench/step.py            # ratios, one table; --check makes a missed bar an error

CPU time: one process, one thread, the three kinds of step in turn, the order reversed every round; the verdict is the
median of the per-round ratios. Peak memory: a fresh process for each kind, so that none inherits another's heap.
"""

import argparse
import gc
import multiprocessing
import statistics
import time
from pathlib import Path

import torch

TEMPLATE = Path(__file__).resolve().parents[1] / "egs" / "TEMPLATE" / "asr" / "conf"
KINDS = {"supervised": ("upper",), "self-supervised": ("lower",), "bljust": ("upper", "lower")}


def build(n_utts: int, n_sec: float):
    """The small recipe's model, its optimizer and one batch for each level."""
    from bilevel.espnet.config import training_config
    from bilevel.espnet.task import BilevelASRTask

    config = training_config([TEMPLATE / "train_asr.yaml", TEMPLATE / "train_small.yaml"], [])
    options = ["--token_list", "none", "--output_dir", "none"]
    args = BilevelASRTask.get_parser().parse_args(options)
    for key, value in config.items():
        setattr(args, key, None if value == "none" else value)
    args.token_list = ["<blank>", "<unk>", *(chr(97 + i) for i in range(26)), "<sos/eos>"]
    torch.manual_seed(0)
    model = BilevelASRTask.build_model(args).train()
    lens = torch.full((n_utts,), int(n_sec * 16000))
    speech = torch.randn(n_utts, int(lens[0]))
    upper = {"text": torch.randint(2, 28, (n_utts, 30)), "text_lengths": torch.full((n_utts,), 30)}
    shared = {"speech": speech, "speech_lengths": lens}
    lower = {"speech": torch.randn_like(speech), "speech_lengths": lens, "seeds": torch.arange(n_utts)}
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4), {"upper": shared | upper, "lower": lower}


class Levels:
    """The model's two levels as a problem."""

    def __init__(self, model) -> None:
        self.model = model
        self.upper_params, self.lower_params = model.upper_params, model.lower_params

    def upper(self, batch):
        """Supervised loss."""
        return self.model(level="upper", **(batch | {"text": batch["text"].clone()}))[0]

    def lower(self, batch):
        """Self-supervised loss."""
        return self.model(level="lower", **batch)[0]


def step(model, optimizer, batches, kind: str) -> None:
    """One training step of a kind: gradient, clipping, update."""
    from bilevel.optim.penalty import Solver

    chosen = {level: batches[level] for level in KINDS[kind]}
    Solver(gamma=0.5).backward(Levels(model), chosen.get("upper"), chosen.get("lower"))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    optimizer.zero_grad()


def times(n_rounds: int, n_utts: int, n_sec: float) -> list[dict[str, float]]:
    """CPU seconds of each kind, by round."""
    torch.set_num_threads(1)
    state = build(n_utts, n_sec)
    for kind in KINDS:
        step(*state, kind)
    rounds = []
    for number in range(n_rounds):
        spent = {}
        for kind in list(KINDS) if number % 2 else reversed(KINDS):
            start = time.process_time()
            step(*state, kind)
            spent[kind] = time.process_time() - start
        rounds.append(spent)
    return rounds


def peak_mb(kind: str, n_utts: int, n_sec: float) -> float:
    """Highest resident memory of two steps above what the model and the optimizer's moments hold."""
    torch.set_num_threads(1)
    state = build(n_utts, n_sec)
    tiny = {level: {k: v[:1] for k, v in batch.items()} for level, batch in state[2].items()}
    step(state[0], state[1], tiny, "bljust")  # moments exist from here on
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for _ in range(2):
        step(*state, kind)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Print the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio is above its bar")
    parser.add_argument("--n_rounds", type=int, default=15)
    parser.add_argument("--n_utts", type=int, default=4)
    parser.add_argument("--n_sec", type=float, default=4.0)
    args = parser.parse_args()
    size = (args.n_utts, args.n_sec)
    rounds = times(args.n_rounds, *size)
    ratios = sorted(r["bljust"] / (r["supervised"] + r["self-supervised"]) for r in rounds)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {kind: statistics.median(pool.apply(peak_mb, (kind, *size)) for _ in range(3)) for kind in KINDS}
    largest = max(peaks["supervised"], peaks["self-supervised"])
    print("| figure | supervised | self-supervised | BL-JUST | ratio | bar |\n|---|---|---|---|---|---|")
    median = {kind: statistics.median(r[kind] for r in rounds) for kind in KINDS}
    print(
        f"| CPU s a step | {median['supervised']:.3f} | {median['self-supervised']:.3f} | {median['bljust']:.3f} | "
        f"{statistics.median(ratios):.3f} of the sum [{ratios[0]:.2f}, {ratios[-1]:.2f}] | 1.03 |"
    )
    ratio, peak_ratio = statistics.median(ratios), peaks["bljust"] / largest
    print(
        f"| peak MB | {peaks['supervised']:.0f} | {peaks['self-supervised']:.0f} | {peaks['bljust']:.0f} | "
        f"{peak_ratio:.3f} of the larger | 1.25 |"
    )
    if args.check and (ratio > 1.03 or peak_ratio > 1.25):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
