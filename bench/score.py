"""Our scorer against jiwer: same counts, how much less CPU time.

Rounds are interleaved (A B, then B A) in one process on one thread; the verdict is the median of the per-round ratios.
`core` is counting alone, the same work as jiwer's; `score` adds normal form, tables and 1000 bootstrap resamples.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import jiwer  # noqa: E402

from bilevel.scoring import wer  # noqa: E402


def corpus(n_utts: int, n_words: int = 20, seed: int = 0) -> tuple[list[str], list[str]]:
    """References of random words and hypotheses with about 12 % errors (half S, a quarter D, a quarter I)."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlucmf", k=rng.randint(2, 8))) for _ in range(5000)]
    refs, hyps = [], []
    for _ in range(n_utts):
        ref = rng.choices(words, k=n_words)
        hyp: list[str] = []
        for word in ref:
            kind = rng.random()
            hyp += rng.choices(words) if kind < 0.06 else [] if kind < 0.09 else [word]
            hyp += rng.choices(words) if kind > 0.97 else []
        refs.append(" ".join(ref))
        hyps.append(" ".join(hyp))
    return refs, hyps


def ratio(ours: Callable[[], object], peer: Callable[[], object], n_rounds: int) -> tuple[float, float, float]:
    """Median, least and greatest of peer's CPU time over ours."""
    ratios = []
    for turn in range(n_rounds):
        seconds = {}
        for call in (ours, peer) if turn % 2 == 0 else (peer, ours):
            start = time.process_time()
            call()
            seconds[call] = time.process_time() - start
        ratios.append(seconds[peer] / seconds[ours])
    return statistics.median(ratios), min(ratios), max(ratios)


def compare(metric: str, n_utts: int, n_rounds: int) -> list[tuple[str, float, float, float]]:
    """Rows (what, median, least, greatest ratio); checks that both scorers count the same.

    Raises:
        ValueError: The counts differ.
    """
    refs, hyps = corpus(n_utts)
    peer = jiwer.process_words if metric == "wer" else jiwer.process_characters
    ids = [f"u{n:06d}" for n in range(n_utts)]
    ref_table, hyp_table = dict(zip(ids, refs, strict=True)), dict(zip(ids, hyps, strict=True))
    ours = wer.score(ref_table, hyp_table, metric=metric).total
    theirs = peer(refs, hyps)
    counts = (ours.correct, ours.substitutions, ours.deletions, ours.insertions)
    if counts != (theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions):
        raise ValueError(f"{metric}: ours {counts}, jiwer {theirs}")
    jobs = {
        "core": lambda: wer.count(refs, hyps, metric),
        "score": lambda: wer.score(ref_table, hyp_table, metric=metric),
    }
    return [(f"{metric} {what}", *ratio(job, lambda: peer(refs, hyps), n_rounds)) for what, job in jobs.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_utts", type=int, default=20000)
    parser.add_argument("--n_rounds", type=int, default=7)
    args = parser.parse_args()
    print("jiwer / ours      median    least  greatest   (counts are identical)")
    for metric, n_utts in (("wer", args.n_utts), ("cer", args.n_utts // 4)):
        for what, *figures in compare(metric, n_utts, args.n_rounds):
            print(f"{what:16}" + "".join(f"{figure:8.1f}x" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
