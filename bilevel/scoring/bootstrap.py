"""Bootstrap sums, shared by intervals and significance."""

import numpy as np

# Bound on the elements of one block of weights: 32 MiB of int64.
_BLOCK_ELEMENTS = 1 << 22
LEVEL = 0.95


def resampled_sums(columns: np.ndarray, *, n_bootstrap: int, seed: int) -> np.ndarray:
    """Column sums over units drawn with replacement.

    Units with equal rows are exchangeable, so n draws of units are one multinomial draw over the distinct rows: the
    same distribution as drawing n indices, at a cost that hardly grows with n.

    Args:
        columns: Non-negative counts, (n_units, n_columns).
        n_bootstrap: Number of resamples, at least 1.
        seed: Seed of the draws.

    Returns:
        Sums, (n_bootstrap, n_columns).

    Raises:
        ValueError: No unit, or no resample.
    """
    if n_bootstrap < 1 or len(columns) == 0:
        raise ValueError(f"bootstrap of {len(columns)} units, {n_bootstrap} resamples: expected at least one of each")
    n_units = len(columns)
    distinct, counts = _distinct(columns)
    distinct = distinct.astype(float)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // len(distinct))
    # In floats, whose product is fast and, below 2^53, exact.
    sums = [
        rng.multinomial(n_units, counts / n_units, size=min(block, n_bootstrap - start)).astype(float) @ distinct
        for start in range(0, n_bootstrap, block)
    ]
    return np.concatenate(sums).astype(np.int64)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of bootstrap values (percentile interval)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def two_sided_p(differences: np.ndarray) -> float:
    """Two-sided p-value of "the difference is 0", from its bootstrap values.

    p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (B + 1)): with the percentile interval it tells the same story
    (p < 0.05 when 0 lies outside), it is never 0, and systems without any difference get 1.
    """
    tail = min(int(np.sum(differences <= 0)), int(np.sum(differences >= 0)))
    return min(1.0, 2 * (1 + tail) / (len(differences) + 1))


def group_sums(columns: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Sums of the rows of each group: (n, c) counts and n group numbers give (n_groups, c)."""
    return np.stack([np.bincount(group, column, n_groups) for column in columns.T], axis=1).astype(np.int64)


def draws(n_bootstrap: int, resample: str, seed: int) -> str:
    """How an interval was drawn, for signatures: `boot:1000.utt.seed0`."""
    return f"boot:{n_bootstrap}.{'utt' if resample == 'utterance' else 'spk'}.seed{seed}"


def _distinct(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows and how often each occurs; rows become single numbers, which sort much faster.

    They come in the order of their first occurrence, so that the draws do not depend on the order of the columns: B
    against A gets those of A against B.
    """
    shape = columns.max(axis=0) + 1
    if np.prod(shape.astype(float)) >= 2**62:
        _, first, counts = np.unique(columns, axis=0, return_index=True, return_counts=True)
    else:
        keys = np.ravel_multi_index(tuple(columns.T), tuple(shape))
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    order = np.argsort(first)
    return columns[first[order]], counts[order]
