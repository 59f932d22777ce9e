"""Decoding: greedy CTC in batches as the quick default, ESPnet's inference for everything else."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import espnet2.tasks.asr as asr
import torch
from espnet2.bin.asr_inference import Speech2Text
from espnet2.text.build_tokenizer import build_tokenizer

import bilevel.espnet.task  # noqa: F401  enters our model into ESPnet's registry
from bilevel.data.tables import read_scp
from bilevel.espnet.config import read_yaml
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.inference import batches, check_loaded, load, load_model


def decode(
    config: Path, model_file: Path, dump: DumpSet, inference: Mapping[str, Any], device: str, part: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    """Hypotheses of one part of a set.

    Args:
        config: config.yaml of the training.
        model_file: Weights, for instance valid.cer_ctc.ave.pth.
        dump: The set.
        inference: `decoder: greedy`, or arguments of ESPnet's Speech2Text (beam_size, ctc_weight, ...). A model with
            one head is searched by that head, whatever ctc_weight says.
        device: "cpu" or "cuda".
        part: (k, n): take utterances k, k + n, ... in the order of their length.

    Yields:
        (utterance id, text).

    Raises:
        ValueError: The model file lacks parameters of the configuration, and ESPnet would go on silently; or greedy
            decoding of a model without CTC.
    """
    ids = dump.by_length()[part[0] :: part[1]]
    options = dict(inference)
    if options.pop("decoder", "beam") == "greedy":
        yield from _greedy(config, model_file, dump, ids, device)
        return
    options["ctc_weight"] = _ctc_weight(config, options)
    speech2text = Speech2Text(asr_train_config=str(config), asr_model_file=str(model_file), device=device, **options)
    check_loaded(speech2text.asr_model, model_file)
    entries = read_scp(dump.scp)
    for key in ids:
        yield key, speech2text(load(entries[key], dump.type))[0][0]


def _ctc_weight(config: Path, options: Mapping[str, Any]) -> float:
    """Share of CTC in the joint score.

    With a weight on a head that it lacks, ESPnet's search would keep the hypotheses to look at by a score of 0 for all.
    """
    wanted, trained = options.get("ctc_weight", 0.5), read_yaml(config)["model_conf"].get("ctc_weight", 0.5)
    if trained in (0.0, 1.0) and wanted != trained:
        logging.warning(f"ctc_weight {wanted}: {config} has one head only, so {trained} is used")
        return trained
    return wanted


@torch.no_grad()
def _greedy(
    config: Path, model_file: Path, dump: DumpSet, ids: Sequence[str], device: str
) -> Iterator[tuple[str, str]]:
    model, args = load_model(asr.ASRTask, config, model_file, device)
    if model.ctc is None:
        raise ValueError(f"{config}: model_conf ctc_weight is 0, so there is no CTC to decode with: use decode_beam")
    tokenizer = build_tokenizer(args.token_type, bpemodel=args.bpemodel)
    for batch, speech, speech_lens in batches(dump, device, ids):
        states, state_lens = model.encode(speech, speech_lens)
        states = states[0] if isinstance(states, tuple) else states
        for key, row, n_states in zip(batch, model.ctc.argmax(states).tolist(), state_lens.tolist(), strict=True):
            units = [unit for unit, _ in itertools.groupby(row[:n_states]) if unit != model.blank_id]
            yield key, tokenizer.tokens2text([model.token_list[unit] for unit in units])
