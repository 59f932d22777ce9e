"""ESPnet's mains with our task, run in this process."""

import argparse
from pathlib import Path

from bilevel.data.files import write_lines
from bilevel.espnet.dump import DumpSet
from bilevel.espnet.launch import stats_options, training_options

# Statistics of ESPnet's reporter that become curves, under our names; those of a level only once it trains.
_SAME = ("gamma", "grad_norm_upper", "grad_norm_lower", "grad_norm", "clip", "skipped", "passes")
_TRAIN_CURVES = {"loss": "train_upper_loss", "ssl_loss": "train_lower_loss", "optim0_lr0": "lr"} | {
    name: name for name in (*_SAME, "ssl_acc", "ssl_label_perplexity")
}
_VALID_CURVES = {
    "loss": {"loss": "valid_upper_loss", "cer": "valid_cer", "acc": "valid_acc"}
    | {"cer_ctc": "valid_cer_ctc", "wer_ctc": "valid_wer_ctc"},
    "ssl_loss": {"ssl_loss": "valid_lower_loss"},
}


def shared_options(args: argparse.Namespace, train: DumpSet, valid: DumpSet) -> list[str]:
    """Options of statistics and training alike."""
    options = ["--token_list", str(args.token_list), "--token_type", args.token_type]
    if args.bpemodel:
        options += ["--bpemodel", str(args.bpemodel)]
    options += train.data_options("train") + valid.data_options("valid")
    if train.input_size() is not None:
        options += ["--input_size", str(train.input_size())]
    return options


def collect_stats(config: Path, args: argparse.Namespace, out_dir: Path) -> None:
    """Stage 10: shapes of all data, and mean and variance of the training features."""
    from bilevel.espnet.task import BilevelASRTask

    train, valid = DumpSet(args.train_dir), DumpSet(args.valid_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    options = stats_options(config, out_dir)
    options += ["--train_shape_file", str(train.lengths), "--valid_shape_file", str(valid.lengths)]
    BilevelASRTask.main(cmd=options + shared_options(args, train, valid))
    if args.unlabelled_dir:
        write_lines(out_dir / "unlabelled" / "speech_shape", DumpSet(args.unlabelled_dir).speech_shapes())


def train(config: Path, args: argparse.Namespace, out_dir: Path, stats_dir: Path) -> None:
    """Stage 11: train or resume; then write curves and cost beside the models."""
    options = training_options(config, args, out_dir, stats_dir)
    from bilevel.espnet.ctc_check import check_ctc_fit
    from bilevel.espnet.pretrained import add_init
    from bilevel.espnet.record import record
    from bilevel.espnet.task import BilevelASRTask

    train_set, valid = DumpSet(args.train_dir), DumpSet(args.valid_dir)
    options += shared_options(args, train_set, valid)
    for split in ("train", "valid"):
        for name in ("speech_shape", "text_shape"):
            options += [f"--{split}_shape_file", str(stats_dir / split / name)]
    if args.unlabelled_dir:
        unlabelled = DumpSet(args.unlabelled_dir)
        options += ["--unlabelled_scp", str(unlabelled.scp), "--unlabelled_type", unlabelled.type]
        options += ["--unlabelled_shape_file", str(stats_dir / "unlabelled" / "speech_shape")]
    options = add_init(BilevelASRTask, options, args)
    check_ctc_fit(options, train_set, stats_dir / "train" / "speech_shape", stats_dir / "ctc_too_long.txt")
    BilevelASRTask.main(cmd=options)
    record(out_dir, BilevelASRTask, _TRAIN_CURVES, _VALID_CURVES)
