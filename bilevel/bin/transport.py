"""`bilevel transport`: design a transport network by BLOCC or a baseline; writes result.json and a map."""

import json
from collections.abc import Sequence
from pathlib import Path

from bilevel.bin._cli import Parser, run


def main(argv: Sequence[str] | None) -> None:
    """Write result.json, trace.jsonl, design.json and network.svg to --exp_dir."""
    parser = Parser(prog="bilevel transport", description=__doc__)
    parser.add_argument("--src", type=Path, required=True, help="folder of NETWORK.json")
    parser.add_argument("--network", default="three_node")
    parser.add_argument("--gamma", type=float, help="penalty weight; default: that of --conf, else 4")
    parser.add_argument("--method", default="blocc", choices=("blocc", "lv_hba", "no_multipliers"))
    parser.add_argument("--seed", type=int, default=0, help="of the start")
    parser.add_argument("--exp_dir", type=Path, required=True)
    parser.add_argument("--conf", type=Path, action="append", default=[], help="yaml file with settings, repeatable")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    import torch

    from bilevel.data.files import write_text
    from bilevel.espnet.config import training_config
    from bilevel.problems import transport_methods
    from bilevel.problems.network import read_network
    from bilevel.problems.result import write_result, write_trace
    from bilevel.report.network import network_svg

    torch.set_num_threads(1)  # tensors are small: more threads only wait for each other
    settings = training_config(args.conf, args.overrides)
    preset = settings.pop("gamma", 4.0)
    gamma = preset if args.gamma is None else args.gamma
    network = read_network(args.src / f"{args.network}.json")
    design = transport_methods.run(network, args.method, gamma, args.seed, settings)
    corpus, last, facts = f"transport_{args.network}", design.rows[-1], design.plain()
    cost = {"updates": int(last["step"]), "passes": int(last["passes"]), "wall_sec": last["seconds"]}
    shared = {"set": f"gamma {gamma:g}", "n_utts": len(network.origin), "signature": design.signature(args.seed)}
    names = [f"{metric}_{point}" for metric in transport_methods.METRICS for point in ("yF", "yg")]
    results = [shared | {"metric": name, "value": design.metrics[name]} for name in names]
    config = settings | {"method": args.method, "network": args.network, "gamma": gamma}
    write_trace(args.exp_dir, design.rows)
    write_text(args.exp_dir / "design.json", json.dumps(facts, indent=1) + "\n")
    links = (facts[key] for key in ("tail", "head", "capacity", "trips"))
    title = f"{args.network}, {args.method}, gamma {gamma:g}: utility {design.metrics['utility_yg']:.1f}"
    write_text(args.exp_dir / "network.svg", network_svg(*links, facts["places"], network.n_stations, title))
    write_result(args.exp_dir, args.method, corpus, args.seed, design.n_variables(), results, cost, config)
    shown = ", ".join(f"{name} {design.metrics[name]:.4g}" for name in names)
    print(f"{args.exp_dir}: {args.method}, gamma {gamma:g}, seed {args.seed}: {shown}; {last['seconds']:.1f} s")


if __name__ == "__main__":
    run(main)
