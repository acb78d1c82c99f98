"""Networks for 32x32 images: VGG with one linear layer, and residual networks."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from isogon.nets.arch.parts import at_least, positive
from isogon.registry import arch
from isogon.variants import variants

VGG: dict[int, tuple[int, ...]] = {  # convolutions per stage
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


@variants(
    "arch",
    {
        "cifar_vgg11": {"depth": 11, "norm": ""},
        "cifar_vgg11_bn": {"depth": 11, "norm": " with batch-norm"},
        "cifar_vgg13": {"depth": 13, "norm": ""},
        "cifar_vgg13_bn": {"depth": 13, "norm": " with batch-norm"},
        "cifar_vgg16": {"depth": 16, "norm": ""},
        "cifar_vgg16_bn": {"depth": 16, "norm": " with batch-norm"},
        "cifar_vgg19": {"depth": 19, "norm": ""},
        "cifar_vgg19_bn": {"depth": 19, "norm": " with batch-norm"},
    },
    cite="simonyan2015",
)
def cifar_vgg(
    depth: int,
    norm: str,
    /,
    *,
    channels: int = 3,
    classes: int = 10,
    size: int | tuple[int, ...] = 32,
    width: int = 64,
    log_softmax: bool = False,
) -> nn.Sequential:
    """VGG{depth}{norm} for 32x32 images: one linear layer behind the convolutions.

    Five stages of 3x3 convolutions, each pooled by two; the depth counts the linear layers of
    the original.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 16.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        log_softmax: End in log-probabilities.
    """
    h, w = at_least(size, 16, f"cifar_vgg{depth}")
    positive(channels=channels, classes=classes, width=width)
    features: list[nn.Module] = []
    fan_in = channels
    for convolutions, times in zip(VGG[depth], (1, 2, 4, 8, 8), strict=True):
        for _ in range(convolutions):
            features.append(nn.Conv2d(fan_in, times * width, 3, padding=1))
            if norm:
                features.append(nn.BatchNorm2d(times * width))
            features.append(nn.ReLU())
            fan_in = times * width
        if min(h, w) > 1:  # images below 32 pixels are down to one before the last stage
            features.append(nn.MaxPool2d(2))
            h, w = h // 2, w // 2
    layers = OrderedDict[str, nn.Module](
        features=nn.Sequential(*features),
        flatten=nn.Flatten(),
        classifier=nn.Linear(fan_in * h * w, classes),
    )
    if log_softmax:
        layers["softmax"] = nn.LogSoftmax(dim=1)
    return nn.Sequential(layers)


@arch(cite="simonyan2015")
def vgg19_orig(*, channels: int = 3, classes: int = 1000, dropout: float = 0.5) -> nn.Module:
    """Torchvision's vgg19 in its original initialisation: weights N(0, 0.01^2), zero biases.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        dropout: Probability of dropping a unit of the linear layers while training.
    """
    from isogon.nets.arch.torchvision_models import build_torchvision

    model = build_torchvision(
        "vgg19", classes=classes, channels=channels, dropout=dropout, init_weights=False
    )
    for m in model.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.normal_(m.weight, 0, 0.01)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return model


# --------------------------------------------------------------------------- residual networks


class PadShortcut(nn.Module):
    """Shortcut without parameters: every second pixel, zero channels added on both sides."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.before = (fan_out - fan_in) // 2
        self.after = fan_out - fan_in - self.before

    def forward(self, x: Tensor) -> Tensor:
        """``[N, fan_in, H, W]`` to ``[N, fan_out, H/2, W/2]``, rounded up."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch-norm, and the shortcut around them."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.r1 = nn.ReLU()
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.r2 = nn.ReLU()
        if stride == 1 and fan_in == fan_out:
            self.shortcut: nn.Module = nn.Sequential()
        elif shortcut == "pad":
            self.shortcut = PadShortcut(fan_in, fan_out)
        else:
            convolution = nn.Conv2d(fan_in, fan_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, fan_in, H, W]`` to ``[N, fan_out, H/stride, W/stride]``."""
        h = self.bn2(self.conv2(self.r1(self.bn1(self.conv1(x)))))
        return self.r2(h + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3x3 convolution, stages of basic blocks, global average, one linear layer."""

    def __init__(
        self,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        shortcut: str,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.r1 = nn.ReLU()
        fan_in, sequence = widths[0], []
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(count):
                stride = 2 if stage and not i else 1
                sequence.append(BasicBlock(fan_in, width, stride, shortcut))
                fan_in = width
        self.block_seq = nn.Sequential(*sequence)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(fan_in, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(m.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to logits ``[N, classes]``."""
        x = self.r1(self.bn1(self.conv1(x)))
        return self.linear(self.flatten(self.pool(self.block_seq(x))))


@variants(
    "arch",
    {
        "cifar_resnet20": {"depth": 20, "blocks": 3},
        "cifar_resnet32": {"depth": 32, "blocks": 5},
        "cifar_resnet44": {"depth": 44, "blocks": 7},
        "cifar_resnet56": {"depth": 56, "blocks": 9},
        "cifar_resnet110": {"depth": 110, "blocks": 18},
    },
    cite="he2016",
)
def cifar_resnet(
    depth: int, blocks: int, /, width: int = 16, *, channels: int = 3, classes: int = 10
) -> CifarResNet:
    """Residual network of {depth} layers for 32x32 images: three stages of {blocks} blocks, \
widths 16-32-64, shortcuts without parameters.

    Args:
        width: Channels of the first stage; each further one has twice as many.
        channels: Input channels.
        classes: Number of outputs.
    """
    positive(width=width, channels=channels, classes=classes)
    widths = (width, 2 * width, 4 * width)
    return CifarResNet(widths, (blocks,) * 3, "pad", channels, classes)


@arch(cite="he2016")
def cifar_resnet18(width: int = 64, *, channels: int = 3, classes: int = 10) -> CifarResNet:
    """ResNet-18 for 32x32 images: 3x3 stem without pooling, four stages of two basic blocks.

    Args:
        width: Channels of the first stage; each further one has twice as many.
        channels: Input channels.
        classes: Number of outputs.
    """
    positive(width=width, channels=channels, classes=classes)
    widths = (width, 2 * width, 4 * width, 8 * width)
    return CifarResNet(widths, (2, 2, 2, 2), "convolution", channels, classes)
