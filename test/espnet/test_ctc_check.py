"""Transcripts longer than the encoder's output are found before training."""

import pytest

from bilevel.data.ctc_fit import needed_frames
from bilevel.testing.trees import sentence

CONFIG = """
model: bilevel
model_conf: {ctc_weight: 1.0, ssl_conf: {codebook_size: 8, codebook_dim: 4}}
frontend: default
frontend_conf: {n_fft: 512, win_length: 400, hop_length: 160, fs: 16k, n_mels: 20, center: false}
encoder: conformer_layernorm
encoder_conf: {output_size: 8, attention_heads: 2, num_blocks: 1, linear_units: 8, cnn_module_kernel: 3}
decoder: none
"""


@pytest.fixture
def options(tmp_path):
    (tmp_path / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", *"abc", "<sos/eos>"]) + "\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    return [
        "--config", str(tmp_path / "config.yaml"), "--token_list", str(tmp_path / "tokens.txt"), "--token_type", "char",
        "--output_dir", str(tmp_path / "exp"),
    ]  # fmt: skip


@pytest.fixture
def check(options, tmp_path):
    """Run the check on (samples, text) by utterance; what it printed or raised is the test's business."""
    from bilevel.espnet.ctc_check import check_ctc_fit
    from bilevel.espnet.dump import DumpSet

    def run(utterances: dict[str, tuple[int, str]], *extra: str) -> list[str]:
        (tmp_path / "wav.scp").write_text("".join(f"{key} {key}.wav\n" for key in utterances))
        (tmp_path / "text").write_text("".join(f"{key} {text}\n" for key, (_, text) in utterances.items()))
        (tmp_path / "speech_shape").write_text("".join(f"{key} {n}\n" for key, (n, _) in utterances.items()))
        report = tmp_path / "ctc_too_long.txt"
        check_ctc_fit([*options, *extra], DumpSet(tmp_path), tmp_path / "speech_shape", report)
        return report.read_text().splitlines()

    return run


def test_lengths_are_those_of_the_encoder(options):
    import torch

    from bilevel.espnet.ctc_check import encoder_length
    from bilevel.espnet.task import BilevelASRTask

    args = BilevelASRTask.get_parser().parse_args(options)
    length = encoder_length(BilevelASRTask.build_model(args), None)
    model = BilevelASRTask.build_model(args).eval()
    for n in (1632, 1792, 1951, 1952, 5000, 16000, 16001, 32768):
        with torch.no_grad():
            states, lens = model.encode(torch.zeros(1, n), torch.tensor([n]))
        assert length(n) == lens.item() == states.size(1)
    assert length(1000) == 0


def test_lengths_of_extracted_features(options):
    from bilevel.espnet.ctc_check import encoder_length
    from bilevel.espnet.task import BilevelASRTask

    args = BilevelASRTask.get_parser().parse_args([*options, "--input_size", "20"])
    length = encoder_length(BilevelASRTask.build_model(args), 20)
    assert [length(n) for n in (5, 7, 11, 100)] == [0, 1, 2, 24]


def test_few_misfits_are_listed_and_many_are_refused(check, capsys):
    fits = {f"u{n:03d}": (16000, "abc") for n in range(199)}
    lines = check(fits | {"odd": (2000, "abcabcabc")})
    assert lines == ["odd: 1 encoder frames, its 9 tokens need 9"]
    assert "WARNING: 1 of 200 training utterances" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"3 of 202 .* such as odd: .*larger --nbpe.*the limit is 1%"):
        check(fits | dict.fromkeys(("odd", "older", "oldest"), (2000, "abcabcabc")))
    assert check(fits) == []


def test_repeats_count_and_unknown_characters_are_one_token(check):
    many = {f"u{n:03d}": (16000, "abc") for n in range(400)}
    n_samples = 512 + 160 * (4 * 5 + 2)  # 23 frames: 5 encoder frames
    assert check(many | {"x": (n_samples, "abcab")}) == []
    assert check(many | {"x": (n_samples, "abbca")}) == ["x: 5 encoder frames, its 5 tokens need 6"]
    assert check(many | {"x": (n_samples, "abxyc")}) == ["x: 5 encoder frames, its 5 tokens need 6"]


def test_only_as_many_lengths_are_tried_as_needed_and_none_is_missed():
    import random

    from bilevel.espnet.ctc_check import _doubtful

    rng, tried = random.Random(0), []
    tokens = {str(n): list(sentence(rng)) for n in range(500)}
    lengths = {key: rng.randint(5, 60) for key in tokens}

    def length(n: int) -> int:
        tried.append(n)
        return n // 2

    doubtful = _doubtful(tokens, lengths, length)
    misfits = {key for key in tokens if lengths[key] // 2 < needed_frames(tokens[key])}
    assert 0 < len(misfits) < len(tokens)
    assert misfits == {key for key, n in doubtful.items() if n < needed_frames(tokens[key])}
    assert len(tried) < len(misfits) + 30
    with pytest.raises(ValueError, match="no shape for 7; run stage 10"):
        _doubtful(tokens, {key: n for key, n in lengths.items() if key != "7"}, length)


def test_without_ctc_there_is_nothing_to_check(check):
    with pytest.raises(FileNotFoundError):  # no list is written
        check({"odd": (2000, "abcabcabc")}, "--model_conf", "ctc_weight=0.0")
