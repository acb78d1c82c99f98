"""Small networks: MLPs, LeNet, and the convolutional ones of the manifold study."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from isogon.nets.arch.parts import activation, at_least, positive
from isogon.registry import arch


@arch()
def mlp(
    width: int = 64,
    depth: int = 2,
    *,
    widths: tuple[int, ...] | None = None,
    inputs: int = 784,
    classes: int = 10,
    activation: str = "relu",
    bias: bool = True,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Multi-layer perceptron: flatten, ``depth`` hidden layers, linear read-out.

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers; 0 is a linear model.
        widths: Hidden widths one by one; replaces ``width`` and ``depth``.
        inputs: Number of input features (pixels x channels for images).
        classes: Number of outputs.
        activation: Name of the nonlinearity.
        bias: Whether linear layers have a bias.
        batch_norm: Normalise before each nonlinearity.
    """
    hidden = tuple(widths) if widths is not None else (width,) * depth
    positive(inputs=inputs, classes=classes, **{f"widths[{i}]": w for i, w in enumerate(hidden)})
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip((inputs, *hidden), hidden, strict=False):
        layers.append(nn.Linear(fan_in, fan_out, bias=bias))
        if batch_norm:
            layers.append(nn.BatchNorm1d(fan_out))
        layers.append(_activation(activation))
    layers.append(nn.Linear((inputs, *hidden)[-1], classes, bias=bias))
    return nn.Sequential(*layers)


@arch(cite="ahn2019")
def mlp_bn(
    width: int = 256,
    bottleneck: int = 64,
    depth: int = 3,
    *,
    inputs: int = 784,
    classes: int = 10,
    batch_norm: bool = True,
    dropout: float = 0.2,
) -> nn.Sequential:
    """MLP of bottleneck blocks with batch-norm: ``width -> bottleneck -> width``, no kink between.

    The published one is ``mlp_bn(4096, 1024)`` on CIFAR-10 (Ahn et al. 2019).

    Args:
        width: Units of each hidden layer.
        bottleneck: Rank of the blocks.
        depth: Number of bottleneck blocks behind the first layer.
        inputs: Number of input features.
        classes: Number of outputs.
        batch_norm: Normalise before each nonlinearity.
        dropout: Probability of dropping a unit while training.
    """
    positive(width=width, bottleneck=bottleneck, inputs=inputs, classes=classes)

    def block(*linear: tuple[str, nn.Module]) -> nn.Sequential:
        parts = OrderedDict([*linear, ("dropout", nn.Dropout(dropout))])
        if batch_norm:
            parts["bn"] = nn.BatchNorm1d(width)
        parts["relu"] = nn.ReLU()
        return nn.Sequential(parts)

    model = OrderedDict[str, nn.Module](flatten=nn.Flatten())
    model["hidden1"] = block(("fc", nn.Linear(inputs, width)))
    for i in range(depth):
        model[f"hidden{i + 2}"] = block(
            ("fc1", nn.Linear(width, bottleneck)), ("fc2", nn.Linear(bottleneck, width))
        )
    model["classifier"] = nn.Linear(width, classes)
    net = nn.Sequential(model)
    for m in net.modules():
        if isinstance(m, nn.Linear):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(m.bias)
    return net


@arch(cite="gamba2022")
def lenet(
    *, channels: int = 1, classes: int = 10, size: int | tuple[int, ...] = 28
) -> nn.Sequential:
    """LeNet with nine weighted layers: six 3x3 convolutions (6, 6, 16, 16, 64, 64), three linear.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 8.
    """
    at_least(size, 8, "lenet")
    features: list[nn.Module] = []
    fan_in = channels
    for width in (6, 16, 64):
        for _ in range(2):
            features += [nn.Conv2d(fan_in, width, 3, padding=1), nn.ReLU()]
            fan_in = width
        features.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(3 * 3 * 64, 120),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(84, classes),
    )
    net = nn.Sequential(
        OrderedDict(
            features=nn.Sequential(*features),
            avgpool=nn.AdaptiveAvgPool2d((3, 3)),
            flatten=nn.Flatten(),
            classifier=classifier,
        )
    )
    gain = nn.init.calculate_gain("relu")
    for m in net.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(m.weight, gain=gain)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return net


@arch()
def cnn(
    width: int = 16,
    *,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Sequential:
    """Small convolutional network: two 3x3 convolutions, each pooled by two, two linear layers.

    Args:
        width: Channels of the first convolution; the second has twice, the hidden linear layer
            four times as many.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 4.
        activation: Name of the nonlinearity.
        batch_norm: Normalise before the nonlinearity of each convolution.
    """
    positive(width=width, channels=channels, classes=classes)
    h, w = at_least(size, 4, "cnn")
    layers = OrderedDict[str, nn.Module]()
    for i, (fan_in, fan_out) in enumerate(((channels, width), (width, 2 * width)), 1):
        layers[f"conv{i}"] = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        if batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm2d(fan_out)
        layers[f"relu{i}" if activation == "relu" else f"act{i}"] = _activation(activation)
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = nn.Linear((h // 4) * (w // 4) * 2 * width, 4 * width)
    layers["relu3" if activation == "relu" else "act3"] = _activation(activation)
    layers["fc2"] = nn.Linear(4 * width, classes)
    return nn.Sequential(layers)


@arch(cite="grementieri2022")
def small_cnn(
    *,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
    log_softmax: bool = True,
) -> nn.Sequential:
    """The small CNN of the data-manifold study: convolutions 4-4, linear 32, log-softmax.

    Parameter names are those of the published checkpoints.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 6.
        log_softmax: End in log-probabilities, as published; measures look below it.
    """
    return _manifold_cnn((4, 4), 32, channels, classes, size, log_softmax, "small_cnn")


@arch(cite="grementieri2022")
def medium_cnn(
    *,
    channels: int = 1,
    classes: int = 10,
    size: int | tuple[int, ...] = 28,
    log_softmax: bool = True,
) -> nn.Sequential:
    """The medium CNN of the data-manifold study: convolutions 32-64, linear 128, log-softmax.

    Parameter names are those of the published checkpoints.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels; at least 6.
        log_softmax: End in log-probabilities, as published; measures look below it.
    """
    return _manifold_cnn((32, 64), 128, channels, classes, size, log_softmax, "medium_cnn")


def _manifold_cnn(widths, hidden, channels, classes, size, log_softmax, name) -> nn.Sequential:
    h, w = at_least(size, 6, name)
    positive(channels=channels, classes=classes)
    first, second = widths
    layers: list[nn.Module] = [
        nn.Conv2d(channels, first, 3),
        nn.ReLU(),
        nn.Conv2d(first, second, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(((h - 4) // 2) * ((w - 4) // 2) * second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    ]
    if log_softmax:
        layers.append(nn.LogSoftmax(dim=1))
    return nn.Sequential(*layers)


# the keyword is called `activation` like the function; the alias keeps both readable
_activation = activation
