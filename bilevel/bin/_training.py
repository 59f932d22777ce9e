"""Options that statistics and training share."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from bilevel.bin._cli import Parser
from bilevel.data.files import write_text
from bilevel.espnet.config import method_file, training_config


def add_data_options(parser: Parser) -> None:
    """Which data, which configuration."""
    parser.add_argument("--train_dir", type=Path, required=True, help="dump directory of the labelled training set")
    parser.add_argument("--valid_dir", type=Path, required=True, help="dump directory of the validation set")
    parser.add_argument("--unlabelled_dir", type=Path, help="dump directory of the unlabelled training set")
    parser.add_argument("--token_list", type=Path, required=True)
    parser.add_argument("--token_type", default="bpe", choices=("bpe", "char", "word"))
    parser.add_argument("--bpemodel", type=Path)
    parser.add_argument("--stats_dir", type=Path, required=True, help="statistics are written and read here")
    parser.add_argument("--config", type=Path, action="append", required=True, help="yaml; later ones win")
    parser.add_argument("--method", required=True, help="yaml of this name in --method_dir, merged on top")
    parser.add_argument("--method_dir", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as optim_conf.lr=0.001")


def write_config(args: argparse.Namespace, path: Path) -> tuple[Path, dict[str, Any]]:
    """Merge configuration, method and overrides into one file for ESPnet."""
    merged = training_config([*args.config, method_file(args.method, args.method_dir)], args.set)
    write_text(path, yaml.safe_dump(merged, sort_keys=False))
    return path, merged
