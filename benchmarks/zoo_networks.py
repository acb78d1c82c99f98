"""The networks of the zoo: nobody here wrote them, and no weights are fetched for them."""

from __future__ import annotations

import gzip
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import isogon as ig

CLASSES = 4
SAMPLES = 8


@dataclass
class Case:
    """A network to be tried.

    Attributes:
        name: What the table calls it, with its source in front.
        build: Makes it, with weights of a seed.
        shape: Shape of one input.
        file: The ONNX file that it comes from, if it comes from one.
    """

    name: str
    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    file: Path | None = None

    def inputs(self) -> Tensor:
        """``[SAMPLES, *shape]`` in [0, 1]: smooth images, each of its own contrast, or vectors."""
        g = torch.Generator().manual_seed(0)
        if len(self.shape) == 3 and min(self.shape[1:]) >= 8:
            coarse = torch.rand(SAMPLES, self.shape[0], 5, 5, generator=g)
            size = self.shape[1:]
            smooth = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True)
            noise = torch.rand(SAMPLES, *self.shape, generator=g)
            contrast = torch.linspace(0.3, 1, SAMPLES).reshape(-1, 1, 1, 1)
            return contrast * (0.8 * smooth + 0.2 * noise)
        return torch.rand(SAMPLES, *self.shape, generator=g)

    def model(self, seed: int) -> nn.Module:
        """In evaluation mode; batch-norm statistics are those of one pass over the inputs."""
        torch.manual_seed(seed)
        model = self.build(seed)
        if self.file is not None:
            return model.eval()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if norms:
            kept = [m.momentum for m in norms]
            for m in norms:
                m.reset_running_stats()
                m.momentum = None
            with torch.no_grad():
                model.train()(self.inputs())
            for m, momentum in zip(norms, kept, strict=True):
                m.momentum = momentum
        return model.eval()

    def second(self, model: nn.Module) -> nn.Module:
        """Another initialisation; of weights that came in a file, their entries in another order.

        Args:
            model: The first one.
        """
        other = self.model(1)
        first = dict(model.named_parameters())
        if all(torch.equal(v, first[k]) for k, v in other.named_parameters()):
            g = torch.Generator().manual_seed(1)
            with torch.no_grad():
                for p in other.parameters():
                    if p.dim() > 1:
                        p.copy_(
                            p.flatten()[torch.randperm(p.numel(), generator=g)].reshape(p.shape)
                        )
        return other


# Names of timm, and what makes them small; all are families of their own.
TIMM: dict[str, dict[str, object]] = {
    "resnet10t": {},
    "seresnet18": {},
    "skresnet18": {},
    "mobilenetv3_small_050": {},
    "lcnet_050": {},
    "ghostnet_050": {},
    "regnetx_002": {},
    "regnety_002": {},
    "mnasnet_small": {},
    "dla46_c": {},
    "starnet_s1": {},
    "convnext_atto": {},
    "edgenext_xx_small": {},
    "mambaout_femto": {"depths": (1, 1, 1, 1)},
    "mobilevit_xxs": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 3},
    "mixer_s32_224": {"img_size": 64},
    "resmlp_12_224": {"img_size": 64},
    "gmlp_ti16_224": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 32, "window_size": 4, "depths": (1, 1, 1, 1),
                                     "embed_dim": 24},
    "test_vit": {"img_size": 32},
    "test_resnet": {},
    "test_convnext": {},
    "test_byobnet": {},
    "test_efficientnet": {},
    "test_nfnet": {},
}  # fmt: skip

TORCHVISION = (
    "resnet18", "densenet121", "googlenet", "mobilenet_v2", "mobilenet_v3_small",
    "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "vit",
)  # fmt: skip
LARGER = {"squeezenet1_1": 48}  # pixels; others take 32


def of_timm() -> Iterator[Case]:
    """Models of timm, with random weights."""
    timm = importlib.import_module("timm")
    for name, small in TIMM.items():

        def build(seed: int, name: str = name, small: dict[str, object] = small) -> nn.Module:
            return timm.create_model(name, pretrained=False, num_classes=CLASSES, **small)

        side = int(str(small.get("img_size", 32)))
        yield Case(f"timm {name}", build, (3, side, side))


def of_torchvision() -> Iterator[Case]:
    """Models of torchvision, with random weights."""
    from torchvision import models

    for name in TORCHVISION:

        def build(seed: int, name: str = name) -> nn.Module:
            if name == "vit":
                return models.VisionTransformer(32, 8, 3, 2, 48, 96, num_classes=CLASSES)
            twice = name == "googlenet"
            kwargs = {"init_weights": True, "aux_logits": False} if twice else {}
            return models.get_model(name, weights=None, num_classes=CLASSES, **kwargs)

        side = LARGER.get(name, 32)
        yield Case(f"torchvision {name}", build, (3, side, side))


def of_transformers() -> Iterator[Case]:
    """Image classifiers of Hugging Face, small ones from their configurations."""
    import transformers as t

    def made(name: str, **facts: object) -> object:
        return getattr(t, f"{name}Config")(**facts)

    tiny = {"num_labels": CLASSES, "image_size": 32, "patch_size": 8}
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64}  # fmt: skip
    stages = {"num_labels": CLASSES, "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 48]}
    configs = {
        "ViT": made("ViT", **tiny, **wide),
        "DeiT": made("DeiT", **tiny, **wide),
        "Beit": made("Beit", **tiny, **wide),
        "Dinov2": made("Dinov2", **tiny, **wide),
        "ResNet": made("ResNet", **stages, embedding_size=16, layer_type="basic"),
        "RegNet": made("RegNet", **stages, embedding_size=16, groups_width=8),
        "ConvNext": made("ConvNext", **stages),
        "ConvNextV2": made("ConvNextV2", **stages),
        "Swin": made(
            "Swin", num_labels=CLASSES, image_size=32, patch_size=4, embed_dim=16, depths=[1, 1],
            num_heads=[2, 2], window_size=4,
        ),
        "MobileNetV1": made("MobileNetV1", num_labels=CLASSES, depth_multiplier=0.25),
        "MobileNetV2": made("MobileNetV2", num_labels=CLASSES, depth_multiplier=0.35),
        "PoolFormer": made(
            "PoolFormer", num_labels=CLASSES, depths=[1, 1, 1, 1], hidden_sizes=[16, 24, 32, 48]
        ),
        "EfficientNet": made("EfficientNet", num_labels=CLASSES, width_coefficient=0.25,
                                             depth_coefficient=0.25, hidden_dim=320),
        "Segformer": made("Segformer", num_labels=CLASSES, hidden_sizes=[16, 16, 16, 16],
                                       depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1]),
    }  # fmt: skip

    for name, config in configs.items():
        kind = getattr(t, f"{name}ForImageClassification")

        def build(seed: int, kind: type = kind, config: object = config) -> nn.Module:
            return kind(config)

        yield Case(f"transformers {name}", build, (3, 32, 32))


class Probabilities(nn.Module):
    """What a face detector says of a face or none, without the boxes.

    Args:
        net: Detector whose output ends with the probabilities ``[N, 2]`` (or of a map).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to ``[N, 2]``."""
        return self.net(x)[-1].flatten(2).mean(2) if x.shape[-1] == 12 else self.net(x)[-1]


def of_facenet(folder: Path) -> Iterator[Case]:
    """The networks of facenet-pytorch; the three of the detector with the weights that it ships."""
    sys.path.insert(0, str(folder))
    from facenet_pytorch import InceptionResnetV1  # type: ignore[import-not-found]
    from facenet_pytorch.models import mtcnn  # type: ignore[import-not-found]

    for name, side in (("PNet", 12), ("RNet", 24), ("ONet", 48)):
        kind: type = getattr(mtcnn, name)

        def build(seed: int, kind: type = kind) -> nn.Module:
            return kind()

        def wrapped(seed: int, kind: type = kind) -> nn.Module:
            return Probabilities(kind())

        yield Case(f"facenet {name}", build, (3, side, side))
        yield Case(f"facenet {name}, probabilities", wrapped, (3, side, side))

    def resnet(seed: int) -> nn.Module:
        return InceptionResnetV1(classify=True, num_classes=CLASSES)

    yield Case("facenet InceptionResnetV1", resnet, (3, 80, 80))


def of_onnx(folder: Path) -> Iterator[Case]:
    """Every ``.onnx`` and ``.onnx.gz`` of a folder, in the order of their names."""
    import onnx

    unpacked = Path(tempfile.mkdtemp(prefix="zoo-onnx-"))
    for path in sorted([*folder.glob("*.onnx"), *folder.glob("*.onnx.gz")]):
        file = path
        if path.suffix == ".gz":
            file = unpacked / path.stem
            file.write_bytes(gzip.decompress(path.read_bytes()))
        graph = onnx.load(str(file)).graph
        own = {i.name for i in graph.initializer}
        given = next(i for i in graph.input if i.name not in own)
        dims = [d.dim_value for d in given.type.tensor_type.shape.dim]

        def build(seed: int, file: Path = file) -> nn.Module:
            return ig.load(file)

        # A sample axis is the first one, where there is more than one axis or it is open.
        shape = tuple(dims[1:]) if len(dims) > 1 or dims[:1] == [0] else tuple(dims)
        yield Case(f"onnx {path.name}", build, shape, file)
        if len(shape) == 3 and shape[2] < 5 <= shape[0]:  # [H, W, C]: as the refusals ask for it

            def first(seed: int, file: Path = file) -> nn.Module:
                return ig.load(file, channels_last=True)

            turned = (shape[2], *shape[:2])
            yield Case(f"onnx {path.name}, channels first", first, turned, file)
