from collections import Counter

import pytest
import torch
import yaml
from asr_kit import TOKENS
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from bilevel.espnet.iterators import BatchStream, TwoStreamIterFactory, mask_seeds
from bilevel.espnet.task import BilevelASRTask
from bilevel.optim.schedule import Plan


class Names(torch.utils.data.Dataset):
    """A set whose item for a name is the name's number."""

    def __getitem__(self, key):
        return key, {"number": torch.tensor([int(key[1:])])}


def collate(items):
    return [key for key, _ in items], {"number": torch.stack([data["number"] for _, data in items])}


def source(letter, n_batches, batch_size=2, num_workers=0):
    ids = [f"{letter}{i}" for i in range(n_batches * batch_size)]
    batches = [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
    return SequenceIterFactory(Names(), batches, shuffle=True, num_workers=num_workers, collate_fn=collate)


def walk(factory, n_epochs):
    """(ids of the upper batch, ids of the lower batch, seeds) of every step."""
    found = []
    for epoch in range(1, n_epochs + 1):
        steps = factory.build_iter(epoch)
        taken = list(steps)
        assert len(taken) == len(steps)
        for ids, batch in taken:
            parts = {}
            for level in ("upper", "lower"):
                if level in batch:
                    letter = "u" if level == "upper" else "l"
                    parts[level] = [f"{letter}{n}" for n in batch[level]["number"].flatten().tolist()]
            assert ids == parts.get("upper", []) + parts.get("lower", [])
            seeds = batch["lower"]["seeds"].tolist() if "lower" in batch else None
            found.append((parts.get("upper"), parts.get("lower"), seeds))
    return found


def two_streams(n_upper, n_lower, plan, n_steps_per_epoch, seed=0, num_workers=0):
    upper, lower = source("u", n_upper, num_workers=num_workers), source("l", n_lower, num_workers=num_workers)
    return TwoStreamIterFactory(upper, lower, plan, n_steps_per_epoch, seed)


@pytest.mark.parametrize(("n_upper", "n_lower"), [(3, 7), (7, 3), (5, 5), (1, 4)])
@pytest.mark.parametrize("when", ["once", "every_epoch"])
def test_every_utterance_is_visited_equally_often(n_upper, n_lower, when):
    plan = Plan(n_steps=40, explore=0.25, joint=0.5, explore_when=when, n_steps_per_epoch=8)
    steps = walk(two_streams(n_upper, n_lower, plan, 8), 5)
    assert [("upper" if u else "") + ("lower" if v else "") for u, v, _ in steps] == [
        {"explore": "lower", "joint": "upperlower", "finetune": "upper"}[plan.stage(step)] for step in range(40)
    ]
    for level, n in ((0, n_upper), (1, n_lower)):
        taken = [step[level] for step in steps if step[level]]
        assert len(taken) == 30
        counts = Counter(key for ids in taken for key in ids)
        assert len(counts) == 2 * n
        assert max(counts.values()) - min(counts.values()) <= 1
        # Each pass is a permutation: no batch comes again before all others came.
        for start in range(0, len(taken) - n + 1, n):
            assert len({tuple(ids) for ids in taken[start : start + n]}) == n


def test_passes_differ_in_order():
    plan = Plan(n_steps=24, joint=1.0)
    lower = [ids for _, ids, _ in walk(two_streams(8, 8, plan, 24), 1)]
    assert lower[:8] != lower[8:16]
    assert sorted(lower[:8]) == sorted(lower[8:16])


def test_positions_continue_over_epochs_however_they_are_cut():
    plan = Plan(n_steps=24, explore=1 / 3, joint=1 / 3)
    whole = walk(two_streams(5, 7, plan, 24), 1)
    assert walk(two_streams(5, 7, plan, 6), 4) == whole
    factory = two_streams(5, 7, plan, 6)  # a resume builds a late epoch first
    late = list(factory.build_iter(3))
    assert [ids for ids, _ in late] == [(u or []) + (v or []) for u, v, _ in whole[12:18]]


def test_workers_do_not_change_the_order():
    plan = Plan(n_steps=12, explore=1 / 3, joint=1 / 3)
    assert walk(two_streams(3, 5, plan, 6, num_workers=2), 2) == walk(two_streams(3, 5, plan, 6), 2)


def test_the_two_batches_of_a_step_are_independent_even_of_one_set():
    plan = Plan(n_steps=200, joint=1.0)
    one_set = [source("u", 10), source("u", 10)]
    steps = list(TwoStreamIterFactory(*one_set, plan, 200, 0).build_iter(1))
    n_same = sum(torch.equal(b["upper"]["number"], b["lower"]["number"]) for _, b in steps)
    assert n_same < 40  # 20 by chance


def test_the_seed_decides_the_order():
    plan = Plan(n_steps=10, joint=1.0)
    orders = [[step[:2] for step in walk(two_streams(10, 10, plan, 10, seed=seed), 1)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_mask_seeds_depend_on_utterance_visit_and_training_only():
    assert torch.equal(mask_seeds(["a", "b"], 0, 1), mask_seeds(["b", "a"], 0, 1).flip(0))
    distinct = {int(mask_seeds([key], n_pass, seed)) for key in "ab" for n_pass in (0, 1, 11) for seed in (0, 1)}
    assert len(distinct) == 12
    plan = Plan(n_steps=10, joint=1.0)
    steps = walk(two_streams(3, 5, plan, 10, seed=4), 1)
    for k, (_, ids, seeds) in enumerate(steps):
        assert seeds == mask_seeds(ids, k // 5, 4).tolist()


def test_all_methods_of_the_recipes_see_labelled_batches_in_one_order(root):
    orders = {}
    for file in sorted((root / "egs/TEMPLATE/asr/conf/method").glob("*.yaml")):
        plan = Plan(n_steps=30, n_steps_per_epoch=6, **yaml.safe_load(file.read_text())["plan_conf"])
        steps = walk(two_streams(4, 7, plan, 6), 5)
        orders[file.stem] = [u for u, _, _ in steps if u]
    assert {"supervised", "pretrain_finetune", "weighted_sum", "bljust"} <= set(orders)
    longest = orders["supervised"]
    assert len(longest) == 30
    for name, order in orders.items():
        assert order == longest[: len(order)], name


def test_refusals():
    with pytest.raises(ValueError, match="pass --unlabelled_set"):
        TwoStreamIterFactory(source("u", 2), None, Plan(n_steps=4, joint=0.5), 4, 0)
    with pytest.raises(ValueError, match="no batches: check its shape file"):
        BatchStream(source("u", 0), 0)
    factory = TwoStreamIterFactory(source("u", 2), None, Plan(n_steps=4), 4, 0)
    assert len(walk(factory, 1)) == 4


def test_the_task_builds_both_streams_from_its_options(kit, corpus):
    def shape(name, kind):
        return str(corpus.root / "stats" / name / f"{kind}_shape")

    args = kit.args(
        plan_conf={"explore": 0.0, "joint": 1.0},
        train_data_path_and_name_and_type=[
            (str(corpus.root / "train/wav.scp"), "speech", "sound"),
            (str(corpus.root / "train/text"), "text", "text"),
        ],
        train_shape_file=[shape("train", "speech"), shape("train", "text")],
        unlabelled_scp=str(corpus.root / "unlab/wav.scp"),
        unlabelled_shape_file=shape("unlabelled", "speech"),
        num_iters_per_epoch=None,
        max_epoch=1,
    )
    args.distributed = False
    from espnet2.train.distributed_utils import DistributedOption

    factory = BilevelASRTask.build_iter_factory(args, DistributedOption(), "train")
    assert args.num_iters_per_epoch == 3  # ESPnet makes 3 batches of 10 utterances, 2 of 8: these cycle
    steps = list(factory.build_iter(1))
    assert len(steps) == 3
    lower_ids = [key for ids, batch in steps for key in ids[-len(batch["lower"]["seeds"]) :]]
    assert sorted(lower_ids) == corpus.ids["unlab"]
    for _, batch in steps:
        upper, lower = batch["upper"], batch["lower"]
        assert len(lower["seeds"]) == len(lower["speech"])
        assert "text" not in lower
        for row, n, length in zip(upper["text"], upper["text_lengths"], upper["speech_lengths"], strict=True):
            text = "".join(" " if TOKENS[unit] == "<space>" else TOKENS[unit] for unit in row[:n])
            (key,) = [k for k, v in corpus.text.items() if v == text]
            assert int(length) == len(corpus.speech[key])
