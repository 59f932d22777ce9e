"""Trains the same in one process, then in two, with and without ESPnet's main; run by test_distributed: FOLDER."""

import argparse
import itertools
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import yaml
from asr_kit import CONFIG, TOKENS, Corpus, Kit, Recorder, snapshot
from espnet2.train.distributed_utils import DistributedOption

from bilevel.espnet import commands, record
from bilevel.espnet.moo_model import MultiObjectiveModel
from bilevel.espnet.moo_step import MultiObjectiveTrainer
from bilevel.espnet.moo_task import build_head, head_conf
from bilevel.espnet.parts import Parts
from bilevel.espnet.ssl_model import BilevelSSLModel

BATCHES = [
    (["train-0", "train-3", "train-5", "train-1"], ["unlab-1", "unlab-2", "unlab-7", "unlab-4"]),
    (["train-2", "train-4", "train-6"], ["unlab-0", "unlab-9", "unlab-3"]),
]


def train(kit: Kit, rank: int, world: int, out: Path) -> None:
    """Six steps, two of each stage, on this process's share of each batch; double precision shows every deviation."""
    args = kit.plan(1 / 3, 1 / 3, 6, penalty_conf={"gamma_max": 0.7}, grad_clip=1.0, train_dtype="float64")
    model = kit.model().double()
    wrapped, option = distribute(model, rank, world, out.parent / "rendezvous")
    steps = []
    for i in range(6):
        upper, lower = BATCHES[i % 2]
        ids, batch = kit.steps(args, upper[rank::world], lower[rank::world])[i]
        for level in batch.values():
            level["speech"] = level["speech"].double()
        steps.append((ids, batch))
    recorder = Recorder(model, lr=0.1)
    _, reporter = kit.epoch(wrapped, steps, args, recorder, distributed=option)
    names = ("loss", "ssl_loss", "ssl_acc", "grad_norm", "n_input")
    stats = {name: float(reporter.get_value("train", name)) for name in names}
    torch.save({"model": snapshot(model), "grads": recorder.seen, "stats": stats}, out)
    if world > 1:
        torch.distributed.destroy_process_group()


def pretrain(kit: Kit, rank: int, world: int, out: Path) -> None:
    """Three pre-training steps with two local steps on each of two sources, and this process's share of each batch."""
    conf = {"n_inner": 2, "lr": 0.01}
    args = kit.plan(1, 0, 3, solver="local", solver_conf=conf, grad_clip=1.0, train_dtype="float64")
    asr = kit.model()
    codes = CONFIG["model_conf"]["ssl_conf"] | {"label_layer": 1}
    model = BilevelSSLModel(asr.frontend, asr.normalize, None, asr.encoder, ssl="birq", ssl_conf=codes).double()
    wrapped, option = distribute(model, rank, world, out.parent / "rendezvous_ssl")
    steps = []
    for _ in range(3):
        parts = [kit.corpus.lower(lower[rank::world]) | {"source": f"s{i}"} for i, (_, lower) in enumerate(BATCHES)]
        steps.append(([], {"lower": [part | {"speech": part["speech"].double()} for part in parts]}))
    recorder = Recorder(model, lr=0.1)
    _, reporter = kit.epoch(wrapped, steps, args, recorder, distributed=option)
    names = ("ssl_loss", "ssl_loss_s0", "ssl_loss_s1", "ssl_acc", "grad_norm", "passes", "n_input", "mix_s0")
    stats = {name: float(reporter.get_value("train", name)) for name in names}
    moved = torch.load(args.output_dir + "/solver/1epoch.pth", weights_only=True) if rank == 0 else None
    torch.save({"model": snapshot(model), "grads": recorder.seen, "stats": stats, "solver": moved}, out)
    if world > 1:
        torch.distributed.destroy_process_group()


def objectives(kit: Kit, rank: int, world: int, out: Path) -> None:
    """Three steps on recognition, translation and self-supervision, weighed by MoDo; each process has its share."""
    args = kit.plan(0, 1, 3, grad_clip=1.0, train_dtype="float64")
    supervised = {"name": "supervised", "objectives": ["asr_aa", "st_aa_xx"], "weighting": "modo"}
    args.moo_conf = {"levels": [supervised, {"name": "codes", "objectives": ["ssl"], "scale": 0.5}]}
    asr = kit.model()
    decoder = {"attention_heads": 2, "linear_units": 16, "num_blocks": 1, "dropout_rate": 0.0}
    decoder |= {f"{name}_dropout_rate": 0.0 for name in ("positional", "self_attention", "src_attention")}
    confs = {"asr": {"model_conf": {"ctc_weight": 1.0}}}
    confs["st"] = {"model_conf": {"ctc_weight": 0.0}, "decoder": "transformer", "decoder_conf": decoder}
    heads = {name: build_head(list(TOKENS), 16, head_conf(confs, name)) for name in ("asr_aa", "st_aa_xx")}
    parts = Parts(asr.frontend, asr.normalize, None, asr.encoder, None)
    model = MultiObjectiveModel(parts, None, heads, "bestrq", CONFIG["model_conf"]["ssl_conf"]).double()
    wrapped, option = distribute(model, rank, world, out.parent / "rendezvous_moo")
    labelled = [kit.corpus.upper(upper[rank::world]) for upper, _ in BATCHES]
    batch = {"asr_aa": labelled, "st_aa_xx": labelled[::-1], "ssl": [kit.corpus.lower(BATCHES[0][1][rank::world])]}
    double = {k: [part | {"speech": part["speech"].double()} for part in parts] for k, parts in batch.items()}
    recorder = Recorder(model, lr=0.1)
    steps = [([], double)] * 3
    _, reporter = kit.epoch(wrapped, steps, args, recorder, distributed=option, trainer=MultiObjectiveTrainer)
    names = ("loss_asr_aa", "loss_st_aa_xx", "loss_ssl", "grad_norm", "weight_asr_aa", "cosine_supervised")
    names += ("passes", "n_input", "mix_ssl")
    stats = {name: float(reporter.get_value("train", name)) for name in names}
    torch.save({"model": snapshot(model), "grads": recorder.seen, "stats": stats}, out)
    if world > 1:
        torch.distributed.destroy_process_group()


def distribute(model: torch.nn.Module, rank: int, world: int, rendezvous: Path):
    """The model in DDP where there are several processes, and ESPnet's option that says so."""
    option = DistributedOption(distributed=world > 1, dist_world_size=world, dist_rank=rank, dist_backend="gloo")
    if world == 1:
        return model, option
    option.dist_init_method = f"file://{rendezvous}"
    option.init_torch_distributed()
    return torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True), option


def train_main(kit: Kit, rank: int, world: int, out: Path) -> None:
    """Two epochs through ESPnet's main, which divides the batches, validates and writes checkpoints."""
    root = kit.corpus.root
    changes = {"optim": "sgd", "optim_conf": {"lr": 0.1}, "train_dtype": "float64", "max_epoch": 2}
    dist = {"dist_backend": "gloo", "dist_init_method": f"file://{out.parent}/rendezvous_main"} if world > 1 else {}
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(CONFIG | changes | dist))
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    folders = {f"{name}_dir": root / d for name, d in (("train", "train"), ("valid", "dev"), ("unlabelled", "unlab"))}
    tokens = {"token_list": kit.corpus.token_list, "token_type": "char", "bpemodel": None, "pretrained": None}
    if rank:
        record.record = lambda *_: None  # the first process's task
    commands.train(
        config, argparse.Namespace(**folders, **tokens, seed=0, ngpu=0), root / f"main_of{world}", root / "stats"
    )


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    kit = Kit(Corpus(folder))
    context = multiprocessing.get_context("fork")  # espnet2 is imported once
    prefixes = {train: "", pretrain: "ssl_", objectives: "moo_", train_main: "main_"}
    for target, world in itertools.product(prefixes, (1, 2)):
        outs = [folder / f"{prefixes[target]}{r}of{world}.pth" for r in range(world)]
        jobs = [context.Process(target=target, args=(kit, r, world, out)) for r, out in enumerate(outs)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
            if job.exitcode:
                sys.exit(f"{target.__name__}: a process of {world} ended with exit code {job.exitcode}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
