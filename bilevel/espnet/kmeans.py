"""Cluster an encoder's states to frame labels: HuBERT's offline relabelling (stage 5 of ssl.sh)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from bilevel.data.files import write_lines, write_text
from bilevel.data.tables import read_scp
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.encoder import encode_features, n_blocks
from bilevel.espnet.inference import batches, load_model
from bilevel.espnet.pretrained import WEIGHTS
from bilevel.espnet.record import input_per_sec
from bilevel.espnet.ssl_task import BilevelSSLTask

FIT_FRAMES = 10_000  # of one update of the centres


@torch.no_grad()
def layer_states(
    model: torch.nn.Module, layer: int | None, dump: DumpSet, device: str, keys: Sequence[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance id, (T', D) states after a block) of a set; layer None: the whole encoder."""
    for ids, speech, lens in batches(dump, device, keys):
        feats, feat_lens = model.features(speech, lens)
        states, state_lens = encode_features(model, feats, feat_lens, layer)
        for key, row, n in zip(ids, states.float().cpu().numpy(), state_lens.tolist(), strict=True):
            yield key, row[:n]


def relabel(
    exp_dir: Path,
    layer: int | None,
    n_clusters: int,
    fit_hours: float,
    sets: Sequence[Path],
    out_dir: Path,
    seed: int,
    device: str,
) -> None:
    """Fit mini-batch k-means on states of the first set, then label all sets.

    One pass over a share of the audio to fit, one over everything to label; only the labels stay in memory. Writes for
    each set a file of its name, `<id> <label> <label> ...` at the encoder's frame rate, and kmeans.json.

    Args:
        exp_dir: Pre-training whose encoder is used.
        layer: After which block; None: 70 % of the depth, where BiRQ takes its labels.
        n_clusters: Number of labels.
        fit_hours: Audio of the first set to fit on, drawn at random.
        sets: Dump directories.
        out_dir: Folder of the labels.
        seed: Of the draw and of the initial centres.
        device: "cpu" or "cuda".

    Raises:
        ValueError: The set to fit on has fewer frames than there are clusters.
    """
    model, args = load_model(BilevelSSLTask, exp_dir / "config.yaml", exp_dir / WEIGHTS, device)
    depth = n_blocks(model.encoder)
    layer = round(0.7 * depth) if layer is None else layer
    if not 1 <= layer <= depth:
        raise ValueError(f"layer {layer}: expected one of 1..{depth}, blocks of a conformer_layernorm encoder")
    first = DumpSet(sets[0])
    kmeans = MiniBatchKMeans(n_clusters, random_state=seed, n_init=1, batch_size=FIT_FRAMES)
    pending: list[np.ndarray] = []
    n_fitted = 0
    to_fit = _draw(first, fit_hours * 3600 * input_per_sec(args), seed)
    for _, states in layer_states(model, layer, first, device, to_fit):
        pending.append(states)
        if sum(map(len, pending)) >= max(FIT_FRAMES, 3 * n_clusters):
            n_fitted += _fit(kmeans, pending)
    if not n_fitted or sum(map(len, pending)) >= n_clusters:
        n_fitted += _fit(kmeans, pending)
    counts = np.zeros(n_clusters, dtype=np.int64)
    for folder in sets:
        lines = []
        for key, states in layer_states(model, layer, DumpSet(folder), device):
            labels = kmeans.predict(states)
            counts += np.bincount(labels, minlength=n_clusters)
            lines.append(f"{key} {' '.join(map(str, labels))}")
        write_lines(out_dir / folder.name, sorted(lines))
    share = counts[counts > 0] / counts.sum()
    facts = {"exp_dir": str(exp_dir), "layer": layer, "n_clusters": n_clusters, "frames_fitted": n_fitted}
    facts |= {"clusters_used": len(share), "perplexity": round(float(np.exp(-(share * np.log(share)).sum())), 2)}
    write_text(out_dir / "kmeans.json", json.dumps(facts, indent=1) + "\n")
    print(f"{out_dir}: {json.dumps(facts)}", flush=True)


def _fit(kmeans: MiniBatchKMeans, pending: list[np.ndarray]) -> int:
    """Move the centres by the frames that have gathered; returns their number."""
    frames = np.concatenate(pending)
    if len(frames) < kmeans.n_clusters:
        raise ValueError(f"{len(frames)} frames for {kmeans.n_clusters} clusters; raise --kmeans_hours or lower "
                         "--n_clusters")  # fmt: skip
    kmeans.partial_fit(frames)
    pending.clear()
    return len(frames)


def _draw(dump: DumpSet, n_wanted: float, seed: int) -> list[str]:
    """Utterances of about so many samples, or frames, at random, the same on every machine; not sorted by length."""
    lengths = {key: int(n) for key, n in read_scp(dump.lengths).items()}
    chosen, total = [], 0
    for key in sorted(lengths, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        if total >= n_wanted:
            break
        chosen.append(key)
        total += lengths[key]
    return chosen
