"""What every scorer asks of its input."""

from collections.abc import Mapping


def check_input(refs: Mapping[str, str], hyps: Mapping[str, str], utt2spk: Mapping | None, resample: str) -> None:
    """Refuse what cannot be scored.

    Raises:
        ValueError: No reference, no id in common, a speaker is missing, or an unknown way to resample.
    """
    if resample not in ("utterance", "speaker"):
        raise ValueError(f"resample {resample!r}: expected utterance or speaker")
    if not refs:
        raise ValueError("zero utterances to score: the reference is empty; check the reference file")
    if hyps and refs.keys().isdisjoint(hyps):
        raise ValueError(
            f"no utterance id in common: references such as {next(iter(refs))}, hypotheses such as "
            f"{next(iter(hyps))}; check that both files are of the same set"
        )
    if utt2spk is not None and (lost := sorted(refs.keys() - utt2spk.keys())):
        raise ValueError(f"{len(lost)} utterances without speaker, such as {', '.join(lost[:3])}; complete utt2spk")
    if resample == "speaker":
        n_speakers = 0 if utt2spk is None else len({utt2spk[i] for i in refs})
        if n_speakers < 2:
            raise ValueError(f"resampling by speaker needs utt2spk with at least 2 speakers, found {n_speakers}")
