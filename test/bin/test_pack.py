"""The packed model is complete, or it is refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from bilevel.bin.pack import main
from bilevel.bin.tokens import main as make_tokens
from bilevel.testing.audio import tones

CONFIG = """
model: bilevel
model_conf: {ctc_weight: 1.0, ssl_conf: {codebook_size: 8, codebook_dim: 4}}
frontend: default
frontend_conf: {n_fft: 512, win_length: 400, hop_length: 160, fs: 16k, n_mels: 20}
normalize: global_mvn
encoder: conformer_layernorm
encoder_conf: {output_size: 8, attention_heads: 2, num_blocks: 1, linear_units: 8, cnn_module_kernel: 3}
decoder: none
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """An experiment with random weights, a subword model and statistics, its files seen from the current folder."""
    import torch

    from bilevel.espnet.task import BilevelASRTask

    monkeypatch.chdir(tmp_path)
    exp, dump, stats = Path("exp/tiny"), Path("dump/test"), Path("exp/stats/feats_stats.npz")
    for folder in (exp, dump, stats.parent):
        folder.mkdir(parents=True)
    Path("text").write_text("u1 red sun\nu2 milk and sky\nu3 north lamp\n")
    make_tokens(["--text", "text", "--out_dir", "tokens", "--token_type", "bpe", "--nbpe", "21"])
    np.savez(stats, count=100, sum=np.full(20, 50.0), sum_square=np.full(20, 400.0))
    rows = {key: tones(key * n) for n, key in enumerate(("ab", "cde", "fghi"), 2)}
    for key, samples in rows.items():
        soundfile.write(dump / f"{key}.wav", samples, 16000)
    (dump / "wav.scp").write_text("".join(f"{key} {(dump / key).resolve()}.wav\n" for key in rows))
    (dump / "utt2num_samples").write_text("".join(f"{key} {len(samples)}\n" for key, samples in rows.items()))
    Path("config.in.yaml").write_text(CONFIG)
    BilevelASRTask.main(
        cmd=[
            "--config", "config.in.yaml", "--output_dir", str(exp), "--dry_run", "true", "--ngpu", "0",
            "--token_list", "tokens/tokens.txt", "--token_type", "bpe", "--bpemodel", "tokens/bpe.model",
            "--normalize_conf", f"stats_file={stats}", "--train_shape_file", "text", "--valid_shape_file", "text",
            "--train_data_path_and_name_and_type", f"{dump}/wav.scp,speech,sound",
            "--valid_data_path_and_name_and_type", f"{dump}/wav.scp,speech,sound",
        ]
    )  # fmt: skip
    model, _ = BilevelASRTask.build_model_from_file(exp / "config.yaml", None, "cpu")
    torch.save(model.state_dict(), exp / "valid.cer_ctc.ave.pth")
    (exp / "result.json").write_text("{}\n")
    return exp


OPTIONS = ["--exp_dir", "exp/tiny", "--check_dir", "dump/test"]


def test_the_archive_decodes_after_the_originals_are_gone(trained, tmp_path, monkeypatch, capsys):
    from espnet2.bin.asr_inference import Speech2Text
    from espnet2.main_funcs.pack_funcs import unpack

    main(OPTIONS)
    out = capsys.readouterr().out
    assert "it decodes fghi as before: " in out  # the longest utterance
    hypothesis = out.split("as before: ")[1].strip()
    archive = zipfile.ZipFile(trained / "packed.zip")
    assert sorted(archive.namelist()) == [
        "bpe.model", "config.yaml", "feats_stats.npz", "meta.yaml", "result.json", "valid.cer_ctc.ave.pth",
    ]  # fmt: skip
    config = yaml.safe_load(archive.read("config.yaml"))
    assert config["bpemodel"] == "bpe.model"
    assert config["normalize_conf"] == {"stats_file": "feats_stats.npz"}
    assert str(tmp_path) not in archive.read("config.yaml").decode()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    samples, _ = soundfile.read("dump/test/fghi.wav", dtype="float32")
    (trained / "packed.zip").rename(elsewhere / "packed.zip")
    for folder in ("exp", "tokens", "dump"):
        (tmp_path / folder).rename(tmp_path / f"gone_{folder}")
    monkeypatch.chdir(elsewhere)
    speech2text = Speech2Text(**unpack("packed.zip", "model"), ctc_weight=1.0, beam_size=1)  # ESPnet's own way
    assert isinstance(speech2text(samples)[0][0], str)
    assert hypothesis.startswith(("'", '"'))

    (elsewhere / "packed.zip").rename(tmp_path / "gone_exp/tiny/packed.zip")
    monkeypatch.chdir(tmp_path)
    for folder in ("exp", "tokens", "dump"):
        (tmp_path / f"gone_{folder}").rename(tmp_path / folder)
    main(OPTIONS)
    assert capsys.readouterr().out.startswith("skip: exp/tiny pack")


def test_what_the_model_needs_must_exist(trained):
    with pytest.raises(ValueError, match=r"best\.pth: no such file; .*there: valid\.cer_ctc\.ave\.pth"):
        main([*OPTIONS, "--model", "best.pth"])
    Path("tokens/bpe.model").unlink()
    with pytest.raises(ValueError, match=r"tokens/bpe\.model: no such file, but the model needs it"):
        main(OPTIONS)
    assert not (trained / "packed.zip").exists()


@pytest.mark.parametrize(
    ("fault", "message"), [("lacks the subword model", "incomplete: "), ("has other weights", "decodes fghi as ")]
)
def test_an_archive_that_is_not_the_model_is_refused(trained, fault, message):
    import torch

    from bilevel.espnet.pack import check_archive, pack_model

    config, weights, archive = trained / "config.yaml", trained / "valid.cer_ctc.ave.pth", trained / "packed.zip"
    pack_model(config, weights, archive, [], "asr")
    members = {info.filename: zipfile.ZipFile(archive).read(info) for info in zipfile.ZipFile(archive).infolist()}
    if fault == "lacks the subword model":
        del members["bpe.model"]
    else:
        state = torch.load(weights, weights_only=True)
        state["ctc.ctc_lo.bias"][3] += 100.0
        stream = io.BytesIO()
        torch.save(state, stream)
        members["valid.cer_ctc.ave.pth"] = stream.getvalue()
    with zipfile.ZipFile(archive, "w") as spoilt:
        for name, content in members.items():
            spoilt.writestr(name, content)
    with pytest.raises(ValueError, match=rf"packed\.zip: {message}"):
        check_archive(config, weights, archive, Path("dump/test"), "asr")


def test_two_files_of_one_name_are_refused(trained):
    from bilevel.espnet.pack import pack_model

    Path("other").mkdir()
    Path("other/bpe.model").write_text("another\n")
    with pytest.raises(ValueError, match="two files of one name"):
        pack_model(
            trained / "config.yaml",
            trained / "valid.cer_ctc.ave.pth",
            trained / "p.zip",
            [Path("other/bpe.model")],
            "asr",
        )


@pytest.fixture
def encoder(trained):
    """A pre-training with random weights, on the same audio."""
    import torch

    from bilevel.espnet.ssl_task import BilevelSSLTask

    kept = ("frontend", "frontend_conf", "normalize", "encoder", "encoder_conf")
    config = {key: value for key, value in yaml.safe_load(CONFIG).items() if key in kept}
    config |= {"model_conf": {"ssl": "bestrq", "ssl_conf": {"codebook_size": 8, "codebook_dim": 4}}}
    config |= {"normalize_conf": {"stats_file": "exp/stats/feats_stats.npz"}}
    folder = Path("exp/encoder")
    folder.mkdir()
    Path("ssl.yaml").write_text(yaml.safe_dump(config))
    args = BilevelSSLTask.get_parser().parse_args(["--config", "ssl.yaml", "--output_dir", str(folder)])
    torch.save(BilevelSSLTask.build_model(args).state_dict(), folder / "latest.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    return folder


def test_an_encoder_is_tried_by_its_states(encoder, capsys):
    import torch

    from bilevel.espnet.pack import check_archive, pack_model

    options = ["--encoder", "--exp_dir", str(encoder), "--check_dir", "dump/test"]
    with pytest.raises(ValueError, match=r"best\.pth: no such file; run stage 7, .*there: latest\.pth"):
        main([*options, "--model", "best.pth"])
    main(options)
    assert "it encodes fghi as before: " in capsys.readouterr().out
    assert {"config.yaml", "feats_stats.npz", "latest.pth"} <= set(zipfile.ZipFile(encoder / "packed.zip").namelist())
    main(options)
    assert capsys.readouterr().out.startswith("skip: exp/encoder pack")
    config, weights, archive = encoder / "config.yaml", encoder / "latest.pth", encoder / "packed.zip"
    pack_model(config, weights, archive, [], "ssl")
    state = torch.load(weights, weights_only=True)
    state["encoder.after_norm.bias"][3] += 1e-3
    torch.save(state, weights)
    with pytest.raises(ValueError, match=r"packed\.zip: encodes fghi as '.* states.*', the original model as"):
        check_archive(config, weights, archive, Path("dump/test"), "ssl")
