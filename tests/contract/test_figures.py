"""Texts of figures: none overlaps another, none is cut off, no legend covers one.

The readings are those that the other tests of the contract make: of every measure, and of three
seeds of it; and of a deep network, whose sites are many and have long names.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from matplotlib.colors import to_hex
from test_measures import MEASURES, objects_of, record_of
from test_seeds import records_of_seeds
from torch import nn

from isogon.show import draw
from isogon.show.fitting import CELL
from isogon.show.together import Panel, draw_together, has_own
from isogon.survey.pages.embedding import DARK
from isogon.survey.pages.figures import study
from isogon.survey.running.run import call_measure
from isogon.training.snapshots import Snapshots
from text_boxes import faults

LONG = ("trained(resnet18, cifar10, epochs=40)", "trained(resnet18, cifar10, epochs=90, mixed)")
FAMILIES = ("rotations(16)", "translations(5)", "scales(0.5, 2)")


@pytest.mark.parametrize("name", MEASURES)
def test_texts_of_a_reading_are_apart_and_stay_dark_on_pale_areas(name):
    drawn = draw(record_of(name).reading)
    assert not faults(drawn)
    for ax in drawn.axes:  # a page that is dark lightens the other texts
        on_areas = [t for t in ax.texts if t.get_gid() == CELL or t.get_path_effects()]
        on_areas += [t for t in ax.texts if ax.images and t.get_transform() == ax.transData]
        assert not {to_hex(t.get_color()) for t in on_areas} & set(DARK)


@pytest.mark.parametrize("name", MEASURES)
def test_texts_of_seeds_are_apart(name):
    records = records_of_seeds(name)
    (drawn,) = study(records)
    assert not faults(drawn.figure)
    readings = tuple(r.reading for r in records.values())
    titles = FAMILIES if has_own(name) else FAMILIES[:1]  # others have a panel per number
    panels = [Panel(t, readings, (LONG[0], LONG[0], LONG[1])) for t in titles]
    assert not faults(draw_together(panels))


class Block(nn.Module):
    """A residual block, its layers called as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.relu2(x + self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))


class Deep(nn.Module):
    """22 sites, called ``encoder.layer3.1.relu2`` and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU()
        self.encoder = nn.Sequential()
        for k, blocks in enumerate((3, 3, 2, 2)):
            stage = nn.Sequential(*[Block() for _ in range(blocks)])
            self.encoder.add_module(f"layer{k + 1}", stage)
        self.classifier_of_the_head = nn.Sequential(nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 10))

    def forward(self, x):
        return self.classifier_of_the_head(self.encoder(self.relu(self.conv1(x))).flatten(1))


def tells_sites(name: str) -> bool:
    """Whether the figures of a measure name the sites of a model."""
    reading = record_of(name).reading
    words = [*reading.table, *reading.coords]
    return any(str(w).startswith("site") or "@relu" in str(w) for w in words)


@pytest.mark.parametrize("name", MEASURES)
def test_texts_of_many_sites_are_apart(name):
    if not tells_sites(name):
        pytest.skip("names no sites")
    job, _declaration, objects = objects_of(name)
    for seed, (key, given) in enumerate(list(objects.items())):
        if isinstance(given, nn.Module):
            torch.manual_seed(seed)
            objects[key] = Deep().eval()
    if "snapshots" in objects:
        earlier = {k: v + 0.1 for k, v in objects["model"].state_dict().items()}
        objects["snapshots"] = Snapshots.of(earlier)
    if "epochs" in job.options:  # training changes no text
        job = replace(job, options={**job.options, "epochs": 0})
    assert not faults(draw(call_measure(job, objects)))
