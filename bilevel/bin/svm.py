"""`bilevel svm`: hyper-parameters of a support vector machine by BLOCC or a baseline; writes result.json."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run


def main(argv: Sequence[str] | None) -> None:
    """Write result.json and trace.jsonl to --exp_dir; settings are those of the paper unless --conf or --set change."""
    parser = Parser(prog="bilevel svm", description=__doc__)
    parser.add_argument("--src", type=Path, required=True, help="folder of DATASET.libsvm; see --download")
    parser.add_argument("--dataset", default="diabetes", choices=("diabetes", "fourclass"))
    parser.add_argument("--download", action="store_true", help="fetch the file into --src where it is not there")
    methods = ("blocc", "no_multipliers", "lv_hba", "gam", "grid", "random", "optimum")
    parser.add_argument("--method", default="blocc", choices=methods)
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the start")
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--conf", type=Path, action="append", default=[], help="yaml file with settings, repeatable")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    import torch

    from bilevel.espnet.config import training_config
    from bilevel.problems import svm_methods
    from bilevel.problems.result import write_result, write_trace
    from bilevel.problems.svm import load

    torch.set_num_threads(1)  # matrices are small: more threads only wait for each other
    settings = training_config(args.conf, args.overrides)
    label = settings.pop("label", args.method)
    features, labels = load(args.src, args.dataset, args.download)
    start = time.process_time()
    problem, rows = svm_methods.run(features, labels, args.method, args.seed, settings)
    corpus, last = f"svm_{args.dataset}", rows[-1]
    cost = {"updates": int(last["step"]), "passes": int(last["passes"]), "wall_sec": last["seconds"]}
    cost["cpu_sec"] = time.process_time() - start  # with the evaluation of every row, which wall_sec leaves out
    signature = f"seed:{args.seed}|train:{len(problem.train)}|valid:{len(problem.valid)}"
    results = svm_methods.results(last, corpus, len(problem.test), signature)
    params = len(problem.c) + len(problem.y)
    config = settings | {"method": args.method, "dataset": args.dataset}
    write_trace(args.exp_dir, [{k: v for k, v in row.items() if math.isfinite(v)} for row in rows])
    write_result(args.exp_dir, label, corpus, args.seed, params, results, cost, config)
    shown = ", ".join(f"{entry['metric']} {entry['value']:.3f}" for entry in results)
    print(f"{args.exp_dir}: {label}, seed {args.seed}: {shown}; {last['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    run(main)
