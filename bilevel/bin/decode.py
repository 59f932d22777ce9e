"""`bilevel decode` (stage 12): hypotheses of the test sets."""

import concurrent.futures
import itertools
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, progress, run
from bilevel.data.files import Stamp, write_lines
from bilevel.data.tables import read_scp

N_PARTS = 10  # of a set, for progress and for processes to share; a model is loaded in a moment, ESPnet is not


def _part(arguments: tuple) -> list[tuple[str, str]]:
    """One process's share of the utterances."""
    import torch

    torch.set_num_threads(1)
    from bilevel.espnet.decode import decode
    from bilevel.espnet.dump import DumpSet

    config, model_file, folder, inference, device, part = arguments
    return list(decode(config, model_file, DumpSet(folder), inference, device, part))


def main(argv: Sequence[str] | None) -> None:
    """Write EXP_DIR/<name of the inference config>/<set>/text for each dump directory."""
    parser = Parser(prog="bilevel decode", description=__doc__)
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--model", default="valid.cer_ctc.ave.pth", help="weights in EXP_DIR")
    parser.add_argument("--inference_config", type=Path, required=True)
    parser.add_argument("--dirs", type=Path, nargs="+", required=True, help="dump directories")
    parser.add_argument("--ngpu", type=int, default=0)
    parser.add_argument("--nj", type=int, default=1)
    args = parser.parse_args(argv)
    from bilevel.espnet.config import read_yaml

    inference = read_yaml(args.inference_config)
    model_file, config = args.exp_dir / args.model, args.exp_dir / "config.yaml"
    device = "cuda" if args.ngpu else "cpu"
    nj = 1 if args.ngpu else args.nj
    # One pool for all sets: each process imports ESPnet once. It starts none until there is work.
    with concurrent.futures.ProcessPoolExecutor(nj, multiprocessing.get_context("spawn")) as pool:
        for folder in args.dirs:
            out_dir = args.exp_dir / args.inference_config.stem / folder.name
            stamp = Stamp(out_dir / ".done" / "decode.json", [model_file.resolve(), folder], inference)
            if stamp.fresh():
                continue
            jobs = [(config, model_file, folder, inference, device, (k, N_PARTS)) for k in range(N_PARTS)]
            rows = progress(pool.map(_part, jobs), N_PARTS, f"decode {folder.name}")
            texts = dict(itertools.chain.from_iterable(rows))
            write_lines(out_dir / "text", [f"{key} {texts[key]}".rstrip() for key in sorted(texts)])
            print(f"{out_dir}/text: {len(texts)} of {len(read_scp(folder / 'utt2dur'))} utterances", flush=True)
            stamp.write()


if __name__ == "__main__":
    run(main)
