"""What the labels of a pre-training say about the characters that are spoken (stage 8 of ssl.sh)."""

import functools
import json
from pathlib import Path

import torch
import torchaudio
from espnet2.text.build_tokenizer import build_tokenizer
from espnet2.text.token_id_converter import TokenIDConverter
from torch import Tensor

from bilevel.data.files import write_text
from bilevel.data.tables import read_scp
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.encoder import encode_features
from bilevel.espnet.inference import batches, load_model
from bilevel.espnet.pretrained import WEIGHTS
from bilevel.espnet.ssl_task import BilevelSSLTask
from bilevel.espnet.task import BilevelASRTask
from bilevel.models.label_quality import counts, quality


def probe(exp_dir: Path, align_exp: Path, align_model: str, folder: Path, targets: Path | None, device: str) -> None:
    """Compare every kind of label of a pre-training with the characters, frame by frame; write probe.json.

    A CTC model aligns the transcripts (Viterbi); blank frames take the unit before them, and those before the first
    unit do not count. All labels must have that model's frame rate.

    Args:
        exp_dir: The pre-training.
        align_exp: A recognition experiment whose CTC aligns.
        align_model: Its weights.
        folder: A dump directory with transcripts.
        targets: Labels from outside, lines of `<id> <label> ...`; None: none.
        device: "cpu" or "cuda".

    Raises:
        ValueError: No transcripts, or labels at another frame rate.
    """
    dump = DumpSet(folder)
    if not dump.text.exists():
        raise ValueError(f"{folder}: no text there; name a dump directory with transcripts (--probe_dir)")
    lacking = sorted(set(dump.by_length()) - set(read_scp(dump.text)))
    if lacking:
        raise ValueError(f"{dump.text}: no transcript of {', '.join(lacking[:3])}; format and filter the set again")
    units, n_units = align(align_exp, align_model, dump, device)
    labels = model_labels(exp_dir, dump, device)
    if targets is not None:
        labels["targets"] = {key: torch.tensor([int(i) for i in row.split()]) for key, row in read_scp(targets).items()}
    results = {}
    for kind, table in labels.items():
        pairs = [_same_length(key, units[key], table[key]) for key in sorted(units) if key in table]
        heard = [(u[u >= 0], z[u >= 0]) for u, z in pairs if (u >= 0).any()]
        if not heard:
            raise ValueError(f"{folder}: nothing to compare with {kind}; the aligning model hears no unit anywhere")
        n_labels = 1 + max(int(z.max()) for _, z in heard)
        results[kind] = quality(counts(heard, n_units, n_labels))
    facts = {"set": folder.name, "align_exp": align_exp.name, "utterances": len(units), "labels": results}
    write_text(exp_dir / "probe.json", json.dumps(facts, indent=1) + "\n")
    print("| labels | unit purity | label purity | PNMI | perplexity |\n|---|---:|---:|---:|---:|")
    for kind, row in results.items():
        cells = (f"{row[name]:.3f}" for name in ("unit_purity", "label_purity", "pnmi", "perplexity"))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def align(exp_dir: Path, weights: str, dump: DumpSet, device: str) -> tuple[dict[str, Tensor], int]:
    """(T',) units of each utterance by forced alignment, -1 before the first one; and the number of units.

    Utterances that are too short for their transcript are left out.
    """
    model, args = load_model(BilevelASRTask, exp_dir / "config.yaml", exp_dir / weights, device)
    tokenizer = build_tokenizer(args.token_type, bpemodel=args.bpemodel)
    to_ids = TokenIDConverter(model.token_list)
    texts = read_scp(dump.text)
    aligned: dict[str, Tensor] = {}
    for ids, speech, lens in batches(dump, device):
        states, state_lens = model.encode(speech, lens)
        log_probs = model.ctc.log_softmax(states).float().cpu()
        for key, row, n in zip(ids, log_probs, state_lens.tolist(), strict=True):
            wanted = torch.tensor([to_ids.tokens2ids(tokenizer.text2tokens(texts[key]))], dtype=torch.int32)
            repeats = int((wanted[0, 1:] == wanted[0, :-1]).sum())
            if wanted.numel() and n >= wanted.numel() + repeats:
                path, _ = torchaudio.functional.forced_align(row[None, :n].contiguous(), wanted, blank=0)
                aligned[key] = _fill_blanks(path[0].long())
    return aligned, len(model.token_list)


def _fill_blanks(path: Tensor) -> Tensor:
    """Blank (0) frames take the last unit before them; -1 where there is none."""
    place = torch.where(path > 0, torch.arange(len(path)), torch.full_like(path, -1))
    last = torch.cummax(place, dim=0).values
    return torch.where(last >= 0, path[last.clamp(min=0)], torch.full_like(path, -1))


@torch.no_grad()
def model_labels(exp_dir: Path, dump: DumpSet, device: str) -> dict[str, dict[str, Tensor]]:
    """Labels that the objective itself makes, by kind: "anchor" of the features, "enhanced" of the middle layer."""
    model, _ = load_model(BilevelSSLTask, exp_dir / "config.yaml", exp_dir / WEIGHTS, device)
    found: dict[str, dict[str, Tensor]] = {}
    encode = functools.partial(encode_features, model)
    for ids, speech, lens in batches(dump, device):
        feats, feat_lens = model.features(speech, lens)
        for kind, (labels, label_lens) in model.ssl.all_labels(feats, feat_lens, encode).items():
            rows = zip(ids, labels.cpu(), label_lens.tolist(), strict=True)
            found.setdefault(kind, {}).update({key: row[:n] for key, row, n in rows})
    return found


def _same_length(key: str, units: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both cut to the shorter one, which may be two frames shorter.

    Raises:
        ValueError: They are further apart.
    """
    n = min(len(units), len(labels))
    if max(len(units), len(labels)) > n + 2:
        raise ValueError(
            f"utterance {key}: {len(labels)} labels for {len(units)} frames of the aligning model; it needs the same "
            "subsampling as the pre-trained encoder"
        )
    return units[:n], labels[:n]
