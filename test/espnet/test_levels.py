"""What a step costs, and what it reports of each source."""

import pytest
import torch
from asr_kit import Recorder

CODES = {"codebook_size": 24, "codebook_dim": 4, "p_mask": 0.1, "mask_span_frames": 8}
BIRQ = {"ssl": "birq", "ssl_conf": CODES | {"label_layer": 1}}  # one of the two blocks
SOURCES = {"a": ["unlab-0", "unlab-1"], "b": ["unlab-2", "unlab-5", "unlab-7"]}


class BlockCounts:
    """Passes in blocks that ran: a backward pass of a block is twice its forward pass."""

    def __init__(self, model):
        self.thirds, self.n_blocks = 0, len(model.encoder.encoders)
        for block in model.encoder.encoders:
            block.norm_final.register_forward_hook(lambda *_: self._add(1))
            block.norm_final.register_full_backward_hook(lambda *_: self._add(2))

    def _add(self, n):
        self.thirds += n

    @property
    def passes(self):
        return self.thirds / 3 / self.n_blocks


def by_source(corpus):
    return [corpus.lower(ids) | {"source": name} for name, ids in SOURCES.items()]


def local(kit, n_inner, **changes):
    """Two steps with a batch of each of two sources; returns what was reported, and the blocks that ran."""
    conf = {"n_inner": n_inner, "lr": 1e-3}
    args = kit.plan(1, 0, 2, solver="local", solver_conf=conf, **changes)
    model = kit.model(**changes)
    counts = BlockCounts(model)
    steps = [(["a", "b"], {"lower": by_source(kit.corpus)}) for _ in range(2)]
    _, reporter = kit.epoch(model, steps, args, Recorder(model))
    return reporter, counts, model


@pytest.mark.parametrize("n_inner", [0, 1, 3])
@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({}, 1.0),
        ({"model_conf": BIRQ}, 1 + 1 / 2),
        ({"model_conf": BIRQ | {"ssl_conf": BIRQ["ssl_conf"] | {"detach_labels": True}}}, 1 + 1 / 6),
        ({"model_conf": BIRQ | {"ssl_conf": BIRQ["ssl_conf"] | {"w_enhanced": 0.0}}}, 1 + 1 / 6),
    ],
    ids=["bestrq", "birq", "birq_detached", "birq_watched"],
)
def test_local_steps_cost_a_pass_of_the_objective_each_and_one_for_the_gradient(kit, n_inner, changes, each):
    reporter, counts, model = local(kit, n_inner, **changes)
    expected = (n_inner + 1) * len(SOURCES) * each
    assert model.ssl.passes == pytest.approx(each)
    assert reporter.get_value("train", "passes") == pytest.approx(expected)
    assert counts.passes / 2 == pytest.approx(expected)  # the mean of two steps
    n_samples = sum(len(kit.corpus.speech[key]) for ids in SOURCES.values() for key in ids)
    assert reporter.get_value("train", "n_input") == pytest.approx(n_samples * (n_inner + 1) * each)


@pytest.mark.parametrize(("explore", "joint", "expected"), [(1, 0, 1.5), (0, 1, 2.5), (0, 0, 1.0)])
def test_labels_count_in_the_lower_level_of_recognition_and_not_in_the_upper_one(kit, explore, joint, expected):
    args = kit.plan(explore, joint, 2)
    model = kit.model(model_conf=BIRQ)
    counts = BlockCounts(model)
    _, reporter = kit.epoch(model, kit.steps(args), args, Recorder(model))
    assert reporter.get_value("train", "passes") == pytest.approx(expected)
    assert counts.passes / 2 == pytest.approx(expected)


def test_a_source_that_has_collapsed_does_not_hide_behind_another(kit):
    args = kit.plan(1, 0, 4, solver="local", solver_conf={"n_inner": 0}, health_conf={"window": 3})
    batches = by_source(kit.corpus)
    _, reporter = kit.epoch(model := kit.model(), [([], {"lower": batches})] * 4, args, Recorder(model))
    assert reporter.get_value("train", "ssl_label_perplexity") > 4
    batches[1]["speech"] = torch.zeros_like(batches[1]["speech"])  # all frames are alike, so all labels are
    with pytest.raises(ValueError, match=r"step 2: .*ssl_label_perplexity of source b is 1 over the last 3 steps"):
        kit.epoch(model := kit.model(), [([], {"lower": batches})] * 4, args, Recorder(model))
    args.health_conf = {"enabled": False}
    _, reporter = kit.epoch(model := kit.model(), [([], {"lower": batches})] * 4, args, Recorder(model))
    assert reporter.get_value("train", "ssl_label_perplexity") > 2  # the mean over sources looks fine
