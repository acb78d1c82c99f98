"""Architecture ladder: every architecture is listed, builds, and maps [N, ...] to [N, classes]."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from isogon import nets, registry
from isogon.errors import FileError, OptionError, SpecError
from isogon.nets.arch.torchvision_models import NAMES

# built in the ladder; the rest of torchvision differs from these by numbers only
TORCHVISION = ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "googlenet"]
OWN = sorted(set(registry.names("arch")) - set(NAMES))


class Data:
    def __init__(self, shape, classes):
        self.shape, self.classes = shape, [str(i) for i in range(classes)]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("shape", "classes"), [((3, 32, 32), 7), ((1, 28, 28), 10)])
def test_own_architectures_build_and_run(name, shape, classes):
    torch.manual_seed(0)
    model = nets.build(name, like=Data(shape, classes)).eval()
    out = model(torch.rand(2, *shape))
    assert out.shape == (2, classes)
    assert out.isfinite().all()
    assert registry.get("arch", name).summary.endswith(".")


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_architectures_build_and_run(name, channels):
    model = nets.build(name, like=Data((channels, 64, 64), 5)).eval()
    assert model(torch.rand(2, channels, 64, 64)).shape == (2, 5)


def test_every_classifier_of_torchvision_is_listed():
    assert set(models.list_models(module=models)) <= set(NAMES)


def test_classes_and_num_classes_are_one():
    assert nets.build("resnet18(num_classes=10)").fc.out_features == 10
    assert nets.build("resnet18(classes=10)").fc.out_features == 10
    assert nets.build("mlp(num_classes=3)")[-1].out_features == 3
    like = Data((3, 32, 32), 7)
    assert nets.build("resnet18(num_classes=10)", like=like).fc.out_features == 10
    with pytest.raises(OptionError, match="differ"):
        nets.build("resnet18(num_classes=10, classes=3)")


def test_torchvision_twin():
    torch.manual_seed(0)
    ours = nets.build("resnet18(num_classes=10)").state_dict()
    torch.manual_seed(0)
    theirs = models.resnet18(num_classes=10).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_published_weights_are_never_downloaded_unasked(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileError, match="--download"):
        nets.build("resnet18(weights=DEFAULT)")
    with pytest.raises(OptionError, match="IMAGENET1K_V1"):
        nets.build("resnet18(weights=IMAGENET)")


@pytest.mark.parametrize(
    "spec", ["cnn(width=0)", "cnn(size=3)", "cnn(activation=rulu)", "mlp(widths=(3, 0))"]
)
def test_bad_options_are_refused(spec):
    with pytest.raises(OptionError):
        nets.build(spec)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(SpecError, match="Did you mean 'resnet18'"):
        nets.build("resnet_18")
    with pytest.raises(SpecError, match="Did you mean 'width'"):
        nets.build("cnn(widht=3)")
