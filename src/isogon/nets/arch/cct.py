"""Compact convolutional transformers: a convolutional tokenizer, encoder blocks, sequence pooling.

Parameter names are those of the published weights.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from isogon.errors import OptionError
from isogon.nets.arch.parts import height_width, positive
from isogon.registry import arch
from isogon.variants import variants

# depth: (encoder blocks, heads, ratio of the hidden width, width)
SHAPES = {2: (2, 2, 1, 128), 4: (4, 2, 1, 128), 6: (6, 4, 2, 256), 7: (7, 4, 2, 256)}
SHAPES[14] = (14, 6, 3, 384)

# The published networks.
VARIANTS = {
    "cct_2_3x2_32": {"depth": 2, "kernel": 3, "layers": 2, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_2_3x2_32_sine": {"depth": 2, "kernel": 3, "layers": 2, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_4_3x2_32": {"depth": 4, "kernel": 3, "layers": 2, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_4_3x2_32_sine": {"depth": 4, "kernel": 3, "layers": 2, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_6_3x1_32": {"depth": 6, "kernel": 3, "layers": 1, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_6_3x1_32_sine": {"depth": 6, "kernel": 3, "layers": 1, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_6_3x2_32": {"depth": 6, "kernel": 3, "layers": 2, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_6_3x2_32_sine": {"depth": 6, "kernel": 3, "layers": 2, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_7_3x1_32": {"depth": 7, "kernel": 3, "layers": 1, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_7_3x1_32_sine": {"depth": 7, "kernel": 3, "layers": 1, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_7_3x1_32_c100": {"depth": 7, "kernel": 3, "layers": 1, "positions": "learnable",
        "classes": 100, "size": 32},
    "cct_7_3x1_32_sine_c100": {"depth": 7, "kernel": 3, "layers": 1, "positions": "sine",
        "classes": 100, "size": 32},
    "cct_7_3x2_32": {"depth": 7, "kernel": 3, "layers": 2, "positions": "learnable",
        "classes": 10, "size": 32},
    "cct_7_3x2_32_sine": {"depth": 7, "kernel": 3, "layers": 2, "positions": "sine",
        "classes": 10, "size": 32},
    "cct_7_7x2_224": {"depth": 7, "kernel": 7, "layers": 2, "positions": "learnable",
        "classes": 1000, "size": 224},
    "cct_7_7x2_224_sine": {"depth": 7, "kernel": 7, "layers": 2, "positions": "sine",
        "classes": 1000, "size": 224},
    "cct_14_7x2_224": {"depth": 14, "kernel": 7, "layers": 2, "positions": "learnable",
        "classes": 1000, "size": 224},
    "cct_14_7x2_384": {"depth": 14, "kernel": 7, "layers": 2, "positions": "learnable",
        "classes": 1000, "size": 384},
    "cct_14_7x2_384_fl": {"depth": 14, "kernel": 7, "layers": 2, "positions": "learnable",
        "classes": 102, "size": 384},
}  # fmt: skip


class Tokenizer(nn.Module):
    """Convolution, ReLU and max-pooling, repeated; pixels become tokens.

    Args:
        channels: Input channels.
        width: Width of the tokens.
        kernel: Size of the convolutions.
        layers: Number of convolutions.
    """

    def __init__(self, channels: int, width: int, kernel: int, layers: int) -> None:
        super().__init__()
        planes = [channels, *[64] * (layers - 1), width]
        stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
        self.conv_layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, kernel, stride=stride, padding=padding, bias=False),
                    nn.ReLU(),
                    nn.MaxPool2d(3, stride=2, padding=1),
                )
                for a, b in pairwise(planes)
            )
        )
        self.flattener = nn.Flatten(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to tokens ``[N, T, width]``."""
        return self.flattener(self.conv_layers(x)).transpose(-2, -1)

    def tokens(self, channels: int, height: int, width: int) -> int:
        """Number of tokens T of an image."""
        with torch.no_grad():
            first = next(self.parameters())
            return self(first.new_zeros(1, channels, height, width)).shape[1]


class Attention(nn.Module):
    """Multi-head self-attention with softmax(q k^T / sqrt(d)) v."""

    def __init__(self, width: int, heads: int, dropout: float, projection: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.softmax = nn.Softmax(dim=-1)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(projection)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same shape."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        weights = self.attn_drop(self.softmax(q @ k.transpose(-2, -1) * self.scale))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class DropPath(nn.Module):
    """Stochastic depth: drop a whole branch, per sample, while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``[N, ...]`` to the same shape; the mean is kept."""
        if not self.training or not self.rate:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class Block(nn.Module):
    """Encoder block: attention, then a two-layer perceptron on the normalised sum."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, attention: float, path: float
    ) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads, attention, dropout)
        self.drop_path = DropPath(path)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.dropout1 = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, width]`` to the same shape."""
        x = self.norm1(x + self.drop_path(self.self_attn(self.pre_norm(x))))
        h = self.linear2(self.dropout1(self.activation(self.linear1(x))))
        return x + self.drop_path(self.dropout2(h))


class Encoder(nn.Module):
    """Positions, encoder blocks, attention pooling over the sequence, linear read-out."""

    positional_emb: Tensor | None

    def __init__(
        self,
        tokens: int,
        width: int,
        blocks: int,
        heads: int,
        ratio: int,
        positions: str,
        classes: int,
        dropout: float,
        attention: float,
        path: float,
    ) -> None:
        super().__init__()
        if positions == "learnable":
            table = torch.empty(1, tokens, width)
            self.positional_emb = nn.Parameter(nn.init.trunc_normal_(table, std=0.2))
        elif positions == "sine":
            self.positional_emb = nn.Parameter(sinusoids(tokens, width), requires_grad=False)
        else:
            self.positional_emb = None
        self.dropout = nn.Dropout(dropout)
        rates = [path * i / max(1, blocks - 1) for i in range(blocks)]
        self.blocks = nn.ModuleList(
            Block(width, heads, ratio * width, dropout, attention, rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width)
        self.attention_pool = nn.Linear(width, 1)
        self.fc = nn.Linear(width, classes)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``[N, T, width]`` to logits ``[N, classes]``."""
        if self.positional_emb is not None:
            x = x + self.positional_emb
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        weights = self.attention_pool(x).softmax(dim=1).transpose(-1, -2)
        return self.fc((weights @ x).squeeze(-2))


class CompactTransformer(nn.Module):
    """Tokenizer and encoder; see `cct`."""

    def __init__(self, tokenizer: Tokenizer, classifier: Encoder) -> None:
        super().__init__()
        self.tokenizer, self.classifier = tokenizer, classifier

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to logits ``[N, classes]``."""
        return self.classifier(self.tokenizer(x))


@arch(cite="hassani2021")
def cct(
    depth: int = 2,
    *,
    kernel: int = 3,
    layers: int = 2,
    positions: str = "learnable",
    blocks: int | None = None,
    heads: int | None = None,
    ratio: int | None = None,
    width: int | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.1,
    stochastic_depth: float = 0.1,
    channels: int = 3,
    classes: int = 10,
    size: int | tuple[int, ...] = 32,
) -> CompactTransformer:
    """Compact convolutional transformer of a named shape, or of one given number by number.

    Args:
        depth: 2, 4, 6, 7 or 14: the published shapes (blocks, heads, ratio, width).
        kernel: Size of the tokenizer's convolutions.
        layers: Number of the tokenizer's convolutions, each pooled by two.
        positions: ``learnable``, ``sine`` or ``none``.
        blocks: Number of encoder blocks, instead of the shape's.
        heads: Number of attention heads, instead of the shape's.
        ratio: Hidden width of a block over its width, instead of the shape's.
        width: Width of the tokens, instead of the shape's.
        dropout: Probability of dropping a unit while training.
        attention_dropout: Probability of dropping an attention weight while training.
        stochastic_depth: Probability of dropping the last block's branches while training.
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels.
    """
    if depth not in SHAPES or positions not in ("learnable", "sine", "none"):
        raise OptionError(
            "no such compact transformer",
            got=f"depth {depth}, positions {positions!r}",
            expected="depth 2, 4, 6, 7, 14; positions learnable, sine, none",
        )
    given = (blocks, heads, ratio, width)
    blocks_, heads_, ratio_, width_ = (
        g if g is not None else s for g, s in zip(given, SHAPES[depth], strict=True)
    )
    positive(blocks=blocks_, heads=heads_, ratio=ratio_, width=width_, layers=layers)
    if width_ % heads_:
        raise OptionError(
            "heads don't divide the width", got=f"{heads_} and {width_}", expected="a divisor"
        )
    h, w = height_width(size)
    tokenizer = Tokenizer(channels, width_, kernel, layers)
    for m in tokenizer.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
    encoder = Encoder(
        tokenizer.tokens(channels, h, w),
        width_,
        blocks_,
        heads_,
        ratio_,
        positions,
        classes,
        dropout,
        attention_dropout,
        stochastic_depth,
    )
    return CompactTransformer(tokenizer, encoder)


def sinusoids(tokens: int, width: int) -> Tensor:
    """Fixed positions ``[1, T, width]``: sines and cosines of geometric wavelengths."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    phase = torch.arange(tokens)[:, None] * rate
    return torch.stack([phase.sin(), phase.cos()], -1).flatten(1)[None, :, :width]


@variants("arch", VARIANTS, cite="hassani2021")
def cct_variant(
    depth: int,
    kernel: int,
    layers: int,
    positions: str,
    /,
    *,
    channels: int = 3,
    classes: int = 10,
    size: int | tuple[int, ...] = 32,
) -> CompactTransformer:
    """Compact convolutional transformer of depth {depth}: {layers} {kernel}x{kernel} \
convolutions, {positions} positions, {size}x{size} images, {classes} classes.

    Args:
        channels: Input channels.
        classes: Number of outputs.
        size: Image size in pixels.
    """
    return cct(
        depth,
        kernel=kernel,
        layers=layers,
        positions=positions,
        channels=channels,
        classes=classes,
        size=size,
    )
