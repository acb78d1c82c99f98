"""Architecture ladder: every architecture is listed, builds, and maps [N, ...] to [N, classes]."""

from __future__ import annotations

import re

import pytest
import torch
from torchvision import models

from isogon import nets, registry
from isogon.errors import FileError, OptionError, SpecError
from isogon.nets.arch.scattering import gabor1d, gabor2d
from isogon.nets.arch.torchvision_models import NAMES
from isogon.survey.pages import bibliography

# built in the ladder; the rest of torchvision differs from these by numbers only
TORCHVISION = ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "googlenet"]
OWN = sorted(set(registry.names("arch")) - set(NAMES))
HEAVY = re.compile(
    r"cct_|vgg19|vgg16_bn|vgg13_bn|cifar_vgg\d+$|cifar_resnet(32|44|56|110)|constant"
)


class Data:
    def __init__(self, shape, classes):
        self.shape, self.classes = shape, [str(i) for i in range(classes)]


def ladder(name, shape, classes, device="cpu"):
    torch.manual_seed(0)
    with torch.no_grad(), torch.device(device):
        model = nets.build(name, like=Data(shape, classes)).eval()
        out = model(torch.rand(2, *shape))
    assert out.shape == (2, classes)
    return out


@pytest.mark.parametrize("name", OWN)
def test_own_architectures_build_on_no_device_and_have_the_right_outputs(name):
    ladder(name, (3, 32, 32), 7, "meta")
    if not HEAVY.match(name) or name.startswith("cifar_vgg"):
        ladder(name, (1, 28, 28), 10, "meta")
    assert registry.get("arch", name).summary.endswith(".")


@pytest.mark.parametrize("name", [n for n in OWN if not HEAVY.match(n)])
def test_own_architectures_run(name):
    assert ladder(name, (3, 32, 32), 7).isfinite().all()


def count(spec):
    with torch.device("meta"):
        return sum(p.numel() for p in nets.build(spec).parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        ("cifar_resnet20", 269_722),
        ("cifar_resnet32", 464_154),
        ("cifar_resnet44", 658_586),
        ("cifar_resnet56", 853_018),
        ("cifar_resnet110", 1_727_962),
        ("cifar_resnet18", 11_173_962),
        ("small_cnn", 4 * 10 + 4 * 37 + 32 * 577 + 10 * 33),
        ("mlp_bn(4096, 1024, inputs=3072)", 37_809_162 + 4 * 2 * 4096),
    ],
)
def test_published_sizes(spec, parameters):
    assert count(spec) == parameters


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        ("cct_2_3x2_32", 0.28),
        ("cct_4_3x2_32", 0.48),
        ("cct_7_3x1_32", 3.76),
    ],
)
def test_published_sizes_of_transformers(spec, millions):
    parameters = sum(p.numel() for p in nets.build(spec).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.006)


def test_nineteen_compact_transformers():
    assert len([n for n in OWN if n.startswith("cct_")]) == 19


def test_ti_pooling_is_exactly_invariant_under_its_group():
    model = nets.build("ti_pooling(4, 8, size=12)").double().eval()
    x = torch.rand(3, 1, 12, 12, dtype=torch.float64)
    for k in (1, 2, 3):
        assert torch.equal(model(torch.rot90(x, k, (2, 3))), model(x))
    assert not torch.allclose(model(x.flip(3)), model(x))
    plain = nets.build("simple_conv(4, 8, size=12)").double().eval()
    assert not torch.allclose(plain(torch.rot90(x, 1, (2, 3))), plain(x))
    with pytest.raises(OptionError, match="square"):
        nets.build("ti_pooling(size=(12, 16))")


def test_siren_keeps_the_spread_of_its_activations(generator):
    torch.manual_seed(0)
    net = nets.build("siren(256, 4)")
    h = torch.rand(2000, 2, generator=generator) * 2 - 1
    for layer in net:
        h = layer(h)
        if type(layer).__name__ == "Sine":
            assert h.std().item() == pytest.approx(0.707, abs=0.05)


def test_scattering_filters_have_zero_mean_and_do_not_expand():
    for bank in (gabor1d(3), gabor2d(2, 4)):
        assert bank.flatten(1).sum(1).abs().max() < 1e-6
        assert torch.allclose(bank.flatten(1).abs().sum(1), torch.ones(len(bank)))
    front = nets.build("scattering(2, 4, 2, size=16)").scattering
    assert front(torch.ones(1, 1, 16, 16))[0, 0].eq(1).all()
    assert front(torch.rand(2, 1, 16, 16)).shape == (2, 1 + 16 + 256, 4, 4)


def test_options_of_simple_conv():
    for kernel in (3, 5, 7):
        for activation in ("elu", "relu", "tanh", "sigmoid", "prelu"):
            for pool in ("max", "stride"):
                spec = f"simple_conv(2, 4, kernel={kernel}, activation={activation}, pool={pool}"
                model = nets.build(spec + ", batch_norm=true, size=14)").eval()
                assert model(torch.rand(2, 1, 14, 14)).shape == (2, 10)
    with pytest.raises(OptionError, match="odd"):
        nets.build("simple_conv(kernel=4)")
    with pytest.raises(OptionError, match="max or stride"):
        nets.build("simple_conv(pool=mean)")


@pytest.mark.long
def test_original_initialisation_of_vgg19():
    model = nets.build("vgg19_orig(classes=10, channels=1)")
    assert model.features[0].weight.shape == (64, 1, 3, 3)
    assert model.features[10].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.classifier[0].bias.any()


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_architectures_build_and_run(name):
    channels = 1 + 2 * (name == "googlenet")
    ladder(name, (channels, 64, 64), 5)


def no_device(name):
    size = {"vit": 224, "max": 224, "inc": 96}.get(name[:3], 64)
    ladder(name, (1, size, size), 5, "meta")


@pytest.mark.parametrize("name", ["densenet121", "vgg16", "vit_b_16", "mnasnet1_0", "alexnet"])
def test_classifiers_of_torchvision_build_on_no_device(name):
    no_device(name)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_classifier_of_torchvision_builds_on_no_device(name):
    no_device(name)


def test_every_classifier_of_torchvision_is_listed():
    assert set(models.list_models(module=models)) <= set(NAMES)


def test_classes_and_num_classes_are_one():
    like = Data((3, 32, 32), 7)
    with torch.device("meta"):
        assert nets.build("resnet18(num_classes=10)").fc.out_features == 10
        assert nets.build("resnet18(classes=10)").fc.out_features == 10
        assert nets.build("resnet18(num_classes=10)", like=like).fc.out_features == 10
        assert nets.build("mlp(num_classes=3)")[-1].out_features == 3
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


def test_every_architecture_cites_what_the_bibliography_holds():
    for name in OWN:
        cited = registry.get("arch", name).extra.get("cite", ())
        for key in (cited,) if isinstance(cited, str) else cited:
            assert bibliography.work_of(key), f"{name} cites {key}: add it to references.bib"


def test_transformations_pooled_over_are_named_by_a_spec():
    model = nets.build("ti_pooling(2, 4, family=rotations(6), size=8)")
    assert len(model.orbit.actions) == 6
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
