"""`bilevel decode` (stage 12): hypotheses of the test sets."""

import concurrent.futures
import multiprocessing
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from bilevel.bin._cli import Parser, progress, run
from bilevel.data.files import Stamp, write_lines
from bilevel.data.tables import read_scp
from bilevel.espnet.config import read_yaml
from bilevel.espnet.moo_launch import model_files

N_PARTS = 10  # of a set, for progress and for processes to share


def _part(arguments: tuple) -> list[tuple[str, str]]:
    """One process's share of the utterances."""
    import torch

    from bilevel.espnet.decode import decode
    from bilevel.espnet.dump import DumpSet

    torch.set_num_threads(1)
    config, model_file, folder, *rest = arguments
    return list(decode(config, model_file, DumpSet(folder), *rest))


def main(argv: Sequence[str] | None) -> None:
    """Write EXP_DIR/<name of the inference config>[_<objective>]/<set>/text for each dump directory."""
    parser = Parser(prog="bilevel decode", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--inference_config", type=Path, required=True)
    parser.add_argument("--model", default="valid.cer_ctc.ave.pth", help="weights in EXP_DIR")
    parser.add_argument("--objective", help="of a multi-objective training, such as st_fr_en")
    parser.add_argument("--dirs", type=Path, nargs="+", required=True, help="dump directories")
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument("--nj", type=int, default=1)
    args = parser.parse_args(argv)
    inference = read_yaml(args.inference_config)
    name = "_".join(filter(None, (args.inference_config.stem, args.objective)))
    device, nj = ("cuda", 1) if args.ngpu else ("cpu", args.nj)
    with concurrent.futures.ProcessPoolExecutor(nj, multiprocessing.get_context("spawn")) as pool:  # one for all sets
        for folder in args.dirs:
            out_dir = args.exp_dir / name / folder.name
            stamp = Stamp(out_dir / ".done" / "decode.json", [(args.exp_dir / args.model).resolve(), folder], inference)
            if stamp.fresh():
                continue
            files = model_files(args.exp_dir, args.model, args.objective)
            jobs = [(*files, folder, inference, device, (k, N_PARTS)) for k in range(N_PARTS)]
            texts = dict(chain(*progress(pool.map(_part, jobs), N_PARTS, f"decode {folder.name}")))
            write_lines(out_dir / "text", [f"{key} {texts[key]}".rstrip() for key in sorted(texts)])
            print(f"{out_dir}/text: {len(texts)} of {len(read_scp(folder / 'utt2dur'))} utterances", flush=True)
            stamp.write()


if __name__ == "__main__":
    run(main)
