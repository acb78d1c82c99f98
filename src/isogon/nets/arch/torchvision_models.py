"""Every classifier of torchvision, by its own name.

The list of names is written down so that listing architectures does not import torchvision; a
test compares it with the installed version.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isogon import context
from isogon.errors import FileError, IsogonError, OptionError, unknown
from isogon.nets.normalize import normalized
from isogon.variants import variants

LIST = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l
efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75
mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf
regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf
regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t
vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16
vit_l_32 wide_resnet101_2 wide_resnet50_2
"""
NAMES = tuple(LIST.split())


@variants("arch", LIST)
def build_torchvision(
    name: str,
    /,
    *,
    classes: int | None = None,
    num_classes: int | None = None,
    channels: int = 3,
    size: int | tuple[int, ...] | None = None,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Torchvision's {name}, randomly initialised unless `weights` is given.

    Args:
        classes: Number of outputs; 1000 by default.
        num_classes: The same, under torchvision's name.
        channels: Input channels; the first convolution is replaced where they are not three.
        size: Image size in pixels, for the builders that are built for one (vision transformers).
        weights: Name of published weights (``"DEFAULT"``, ``"IMAGENET1K_V1"``). The model then
            takes raw pixels: their normalisation becomes its first layer. They are downloaded
            only where that is allowed.
        **options: Further keywords of torchvision's builder.

    Raises:
        OptionError: Unknown weights, or an option that torchvision does not take.
        FileError: The weights are not on this machine and downloads are not allowed.
    """
    from torchvision import models

    if classes is not None and num_classes is not None and classes != num_classes:
        raise OptionError(
            "classes and num_classes differ", got=f"{classes} and {num_classes}", expected="one"
        )
    classes = classes if classes is not None else num_classes
    if size is not None and name.startswith("vit_"):
        options.setdefault("image_size", size if isinstance(size, int) else size[0])
    if size is not None and name.startswith("maxvit"):
        options.setdefault("input_size", (size, size) if isinstance(size, int) else tuple(size))
    if name in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", True)
    published = _published(name, weights) if weights is not None else None
    if published is None and classes is not None:
        options["num_classes"] = classes
    # regnets read numbers off tensors while they are built, which the meta device can't give
    meta = name.startswith("regnet") and torch.get_default_device().type == "meta"
    try:
        with torch.device("cpu") if meta else nullcontext():
            model = models.get_model(name, weights=published, **options)
        model = model.to("meta") if meta else model
    except IsogonError:
        raise
    except (TypeError, ValueError, AssertionError, LookupError) as error:
        builder = models.get_model_builder(name)
        raise OptionError(
            f"torchvision can't build {name} ({error})",
            got=options,
            expected=str(inspect.signature(builder)),
        ) from error
    if published is not None and classes not in (None, len(published.meta["categories"])):
        _replace_head(model, classes)
    if channels != 3:
        _adapt_channels(model, channels, keep=published is not None)
    if published is None:
        return model
    transform = published.transforms()
    mean, std = transform.mean, transform.std
    if channels != 3:  # the mean filter over colours: statistics are averaged likewise
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    return normalized(model, mean, std)


def _published(name: str, weights: str) -> Any:
    from torchvision import models

    context.typed_only("read published weights", f"{name}(weights={weights})")
    known = models.get_model_weights(name)
    wanted = weights.rpartition(".")[2]
    if wanted not in known.__members__:
        raise unknown(f"weights of {name}", weights, known.__members__, error=OptionError)
    found = known[wanted]
    file = Path(torch.hub.get_dir()) / "checkpoints" / found.url.rpartition("/")[2]
    if not file.exists() and not context.download_allowed():
        raise FileError(
            f"published weights of {name} are not on this machine",
            got=file,
            expected="the file, or leave to download it",
            fix="Allow it with --download (isogon.context.use(download=True)).",
        )
    return found


def _adapt_channels(model: nn.Module, channels: int, *, keep: bool) -> None:
    """Replace the first convolution by one of ``channels`` inputs.

    Kept weights are averaged over colours and repeated, scaled so that a grey image gives what it
    gave in three channels.
    """
    path, old = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        if keep:
            new.weight.copy_(old.weight.sum(1, keepdim=True).expand_as(new.weight) / channels)
        else:
            nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias) if keep else new.bias.zero_()
    _set(model, path, new)


def _replace_head(model: nn.Module, classes: int) -> None:
    """Replace the last linear layer (or convolution) by a fresh one of ``classes`` outputs."""
    path, old = [
        (p, m)
        for p, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d) and not p.lower().startswith("aux")
    ][-1]
    if isinstance(old, nn.Linear):
        _set(model, path, nn.Linear(old.in_features, classes, bias=old.bias is not None))
    else:
        _set(model, path, nn.Conv2d(old.in_channels, classes, old.kernel_size))  # type: ignore[arg-type]


def _set(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
