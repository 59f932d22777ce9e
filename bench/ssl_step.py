"""Cost of self-supervised steps against their floors and against SpeechBrain's way of doing them.

    python bench/ssl_step.py             # all ratios, one table; --check makes a missed bar an error

CPU time, one process, one thread, the two sides of a ratio in turn, the order reversed every round; the verdict is the
median of the per-round ratios, the brackets hold the least and the greatest. Rows with SpeechBrain need it importable
(pip install speechbrain==1.1.2 into an environment of its own, put on PYTHONPATH) and are skipped without it.
"""

import argparse
import functools
import gc
import importlib.util
import multiprocessing
import statistics
import types
from collections.abc import Callable
from pathlib import Path

import step as bench_step
import torch
from timing import ratios
from torch import Tensor, nn

from bilevel.models import bestrq, birq, masking
from bilevel.models.masked_prediction import encode_masked
from bilevel.models.quantizer import RandomProjectionQuantizer

DIM, BLOCKS, FEAT_DIM, N_UTTS, N_FRAMES = 144, 8, 240, 4, 200  # stacked frames of 20 ms
TOKENS, CODES, CODE_DIM = 960, 8192, 16
MASKS = {"stack": 1, "p_mask": 0.02, "mask_span_frames": 20}
BARS = {
    "quantizer / SpeechBrain": 0.06,
    "quantizer MB / SpeechBrain": 0.1,
    "BEST-RQ / floor": 1.05,
    "BEST-RQ / SpeechBrain": 0.88,
    "BEST-RQ / SpeechBrain, 1024 codes": 0.88,
    "BiRQ / BEST-RQ": 1.65,
    "BiRQ detached / BEST-RQ": 1.27,
    "1 local step + 1 / 2 steps": 1.03,
    "4 local steps + 1 / 5 steps": 1.03,
}


class Setup:
    """One encoder, one batch, and steps on them: gradients are computed, then dropped."""

    def __init__(self, codebook_size: int) -> None:
        from bilevel.espnet.encoder import LayerNormConformerEncoder, encode_features

        torch.manual_seed(0)
        self.encoder = LayerNormConformerEncoder(
            FEAT_DIM, output_size=DIM, attention_heads=4, num_blocks=BLOCKS, linear_units=4 * DIM, macaron_style=True,
            input_layer="linear", rel_pos_type="latest", attention_dropout_rate=0.1,
        ).train()  # fmt: skip
        self.encode = functools.partial(encode_features, types.SimpleNamespace(encoder=self.encoder, preencoder=None))
        self.feats = torch.randn(N_UTTS, N_FRAMES, FEAT_DIM)
        self.lens = torch.full((N_UTTS,), N_FRAMES)
        self.seeds = torch.arange(N_UTTS)
        self.sizes = {"codebook_size": codebook_size, "codebook_dim": CODE_DIM} | MASKS
        self.bestrq = bestrq.Objective(FEAT_DIM, DIM, BLOCKS, **self.sizes)

    def loss(self, objective: nn.Module) -> Tensor:
        """An objective's loss."""
        return objective(self.feats, self.lens, self.seeds, self.encode).loss

    def step(self, loss: Callable[[], Tensor], *heads: nn.Module) -> Callable[[], None]:
        """Forward and backward pass."""

        def run() -> None:
            loss().backward()
            for module in (self.encoder, *heads):
                module.zero_grad()

        return run

    def best_rq(self) -> Callable[[], None]:
        """Our step."""
        return self.step(lambda: self.loss(self.bestrq), self.bestrq)

    def floor(self) -> Callable[[], None]:
        """The same with masked features and labels given."""
        mask = self.bestrq.masking
        encoded = encode_masked(mask, self.feats, self.lens, self.seeds, lambda x, n: (x, n))
        labels = encoded.counted.pick(self.bestrq.labels(self.feats, self.lens))

        def loss() -> Tensor:
            states, _ = self.encode(encoded.states, self.lens)
            return nn.functional.cross_entropy(self.bestrq.head(encoded.counted.pick(states)), labels)

        return self.step(loss, self.bestrq)

    def birq(self, **conf) -> Callable[[], None]:
        """BiRQ's step with labels from half the depth."""
        objective = birq.Objective(FEAT_DIM, DIM, BLOCKS, label_layer=BLOCKS // 2, **self.sizes, **conf)
        return self.step(lambda: self.loss(objective), objective)

    def speechbrain(self) -> Callable[[], None]:
        """SpeechBrain's order of operations around our encoder.

        Broadcast distances, one mask for the whole batch, logits of all frames, then those of the masked ones.
        """
        from speechbrain.lobes.models.BESTRQ import compute_mask
        from speechbrain.nnet.quantisers import RandomProjectionQuantizer as Theirs

        quantizer = Theirs(FEAT_DIM, CODE_DIM, self.sizes["codebook_size"])
        head = nn.Linear(DIM, self.sizes["codebook_size"])
        n_masked = masking.Masking(noise_std=0.1, **MASKS).masks(self.seeds, self.lens, N_FRAMES)[1].sum() / N_UTTS
        share = float(n_masked) / N_FRAMES / 4  # as many masked frames as ours, in spans of 4

        def loss() -> Tensor:
            feats = bestrq.label_input(self.feats, self.lens)
            labels = quantizer(feats)
            places = compute_mask(feats.shape, self.lens.tolist(), share, 4)
            noisy = feats.clone()
            noisy[:, places] = 0.1 * torch.randn(N_UTTS, len(places), FEAT_DIM)
            states, _ = self.encode(noisy, self.lens)
            logits = head(states)
            return nn.functional.cross_entropy(logits[:, places].flatten(0, 1), labels[:, places].flatten())

        return self.step(loss, head)

    def local(self, n_inner: int) -> tuple[Callable[[], None], Callable[[], None]]:
        """K local steps and the outer one, and K + 1 plain steps, all by AdamW."""
        from bilevel.optim.local import Solver

        params = [*self.encoder.parameters(), *self.bestrq.parameters()]
        optimizer = torch.optim.AdamW(params, lr=1e-5)
        solver, problem = Solver(lr=1e-5, n_inner=n_inner), _Lower(lambda: self.loss(self.bestrq), params)

        def local() -> None:
            solver.backward(problem, None, [0])
            optimizer.step()
            optimizer.zero_grad()

        def plain() -> None:
            for _ in range(n_inner + 1):
                self.loss(self.bestrq).backward()
                optimizer.step()
                optimizer.zero_grad()

        return local, plain


class _Lower:
    """A problem with a lower level only."""

    def __init__(self, loss: Callable[[], Tensor], params: list[nn.Parameter]) -> None:
        self.lower = lambda batch: loss()
        self.lower_params = lambda: params
        self.upper_params = list


def quantizers() -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Ours and SpeechBrain's on the same tokens, with the same projection and codes."""
    from speechbrain.nnet.quantisers import RandomProjectionQuantizer as Theirs

    torch.manual_seed(0)
    ours = RandomProjectionQuantizer(4 * 80, CODE_DIM, CODES)
    theirs = Theirs(4 * 80, CODE_DIM, CODES)
    theirs.P.copy_(ours.projection)
    theirs.CB.copy_(ours.codebook)
    tokens = torch.randn(8, TOKENS // 8, 4 * 80)
    return (lambda: ours(tokens)), (lambda: theirs(tokens))


def quantizer_peak_mb(which: int) -> float:
    """Memory that a call takes above what was there; to be run in a fresh process."""
    torch.set_num_threads(1)
    call = quantizers()[which]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = bench_step._status("VmRSS")
    call()
    return (bench_step._status("VmHWM") - before) / 1024


def rows(n_rounds: int):
    """(name, sorted ratios, calls of ours in one of the other's) of everything that can be measured here."""
    setup, few = Setup(CODES), Setup(1024)
    if importlib.util.find_spec("speechbrain") is None:
        print("speechbrain is not installed: its two comparisons are left out")
    else:
        ours, theirs = quantizers()
        same = float((ours() == theirs()).float().mean())
        print(f"labels of our quantizer and of SpeechBrain's, same projection and codes: {same:.4f} agree")
        yield "quantizer / SpeechBrain", ratios(lambda: [ours() for _ in range(8)], theirs, n_rounds), 8
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = [pool.apply(quantizer_peak_mb, (which,)) for which in (0, 1)]
        print(f"memory of a call: ours {peaks[0]:.0f} MB, SpeechBrain's {peaks[1]:.0f} MB")
        yield "quantizer MB / SpeechBrain", [peaks[0] / peaks[1]], 1
        yield "BEST-RQ / SpeechBrain", ratios(setup.best_rq(), setup.speechbrain(), n_rounds), 1
        yield "BEST-RQ / SpeechBrain, 1024 codes", ratios(few.best_rq(), few.speechbrain(), n_rounds), 1
        # What no order of operations around this encoder can pass.
        yield "floor / SpeechBrain, 1024 codes", ratios(few.floor(), few.speechbrain(), n_rounds), 1
    yield "BEST-RQ / floor", ratios(setup.best_rq(), setup.floor(), n_rounds), 1
    yield "BiRQ / BEST-RQ", ratios(few.birq(), few.best_rq(), n_rounds), 1
    yield "BiRQ detached / BEST-RQ", ratios(few.birq(detach_labels=True), few.best_rq(), n_rounds), 1
    yield "1 local step + 1 / 2 steps", ratios(*few.local(1), n_rounds), 1
    yield "4 local steps + 1 / 5 steps", ratios(*few.local(4), max(3, n_rounds // 2)), 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a ratio is above its bar")
    parser.add_argument("--n_rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    missed = False
    table = ["| ratio of CPU time | median | range | bar |", "|---|---|---|---|"]
    for name, found, calls in rows(args.n_rounds):
        median = statistics.median(found) / calls
        bar = BARS.get(name, "")
        missed |= bar != "" and median > bar
        table.append(f"| {name} | {median:.3f} | {found[0] / calls:.3f} - {found[-1] / calls:.3f} | {bar} |")
        print(table[-1], flush=True)
    print("\n".join(["", *table]))
    if args.check and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
