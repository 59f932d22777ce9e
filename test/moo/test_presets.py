"""Each list of levels in doc/moo.md builds, and has the scales that the paper has."""

import re

import pytest
import torch
import yaml
from torch.nn import Parameter

from bilevel.moo.levels import Levels

OBJECTIVES = ("ssl", "asr_en", "asr_fr", "st_fr")


@pytest.fixture(scope="module")
def presets(root):
    text = (root / "doc/moo.md").read_text(encoding="utf-8")
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def build(preset):
    return Levels({"w": Parameter(torch.ones(3))}, {name: [] for name in OBJECTIVES}, **preset)


def test_each_one_makes_a_step(presets):
    assert len(presets) == 8
    for preset in presets:
        levels = build(preset)
        (weight,) = levels.collector.shared
        losses = {name: lambda x, weight=weight: (weight - x).square().sum() for name in OBJECTIVES}
        batches = {name: [torch.tensor(float(i))] * levels.n_batches(name) for i, name in enumerate(OBJECTIVES)}
        report = levels.backward(losses, batches, epoch=250)
        assert weight.grad is not None
        assert report["finite"] == 1


def test_scales_at_the_epochs_that_the_paper_names(presets):
    vs, vc, vm_asr, vm_st, languages, m2asr, plain, two_stage = (build(preset) for preset in presets)
    assert [vs.scales(e) for e in (0, 200)] == [{"all": 1.0}] * 2
    for epoch in (0, 1, 50, 75, 200):
        eta = min(1.5, 0.02 * epoch)
        eta_1 = min(1.5, 0.1 + 0.02 * epoch)
        assert list(vc.scales(epoch).values()) == pytest.approx([1, eta])
        assert list(vm_asr.scales(epoch).values()) == pytest.approx([1, eta_1, eta_1 * eta])
        assert list(vm_st.scales(epoch).values()) == pytest.approx([1, eta_1, eta_1 * eta])
        assert list(languages.scales(epoch).values()) == pytest.approx([1, eta_1, eta])
        assert list(m2asr.scales(epoch).values()) == pytest.approx([1, 0.002 * epoch])
        assert list(plain.scales(epoch).values()) == [1, 0.5]
    assert two_stage.active(199) == ["ssl"]
    assert two_stage.active(200) == ["asr_en", "asr_fr", "st_fr"]
    assert vm_asr.levels[0].objectives == ["asr_en", "asr_fr"]
    assert vm_st.levels[0].objectives == ["st_fr"]
