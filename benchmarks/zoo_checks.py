"""What the zoo asks of each measure, and what is computed beside it without isogon.

A check calls its measure on a small input and compares numbers of the reading with the network's
own forward passes, autograd or NumPy. It returns what was compared, "" where nothing beyond a
finished reading was, and raises `Wrong` where they differ.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import zoo_inside as inside
from torch import Tensor, nn
from zoo_inside import Wrong, close, double, logits
from zoo_networks import Case

import isogon as ig


class Trial:
    """A network, its inputs, and what the measures take beside them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = case.model(0)
        self.x = case.inputs().to(next(self.model.parameters()).dtype)

    @cached_property
    def out(self) -> Tensor:
        """Outputs of all inputs."""
        with torch.no_grad():
            return logits(self.model, self.x)

    @cached_property
    def y(self) -> Tensor:
        """Labels of which some are what the network answers."""
        try:
            answers, classes = self.out.argmax(-1), self.out.shape[-1]
        except (TypeError, AttributeError):  # the measure itself is to say what is wrong
            return torch.arange(len(self.x)) % 2
        own = torch.arange(len(self.x)) % 3 > 0
        if classes == 1:
            return torch.arange(len(self.x)) % 2
        return torch.where(own, answers, (answers + 1) % classes)

    @cached_property
    def data(self) -> list[tuple[Tensor, Tensor]]:
        """All inputs with labels, in two batches."""
        return [(self.x[:5], self.y[:5]), (self.x[5:], self.y[5:])]

    @cached_property
    def two(self) -> list[tuple[Tensor, Tensor]]:
        """The first two inputs."""
        return [(self.x[:2], self.y[:2])]

    @cached_property
    def other(self) -> nn.Module:
        """Another initialisation."""
        return self.case.second(self.model)

    @cached_property
    def exact(self) -> nn.Module:
        """The network in float64."""
        return double(self.model)

    @property
    def image(self) -> bool:
        """Whether inputs are images that can be turned."""
        return self.x.dim() == 4 and min(self.x.shape[2:]) >= 8

    def plane(self, radius: float) -> ig.Slice:
        """A square around the first input, towards two others; ``radius`` in shares of the way."""
        origin, u, v = self.x[0], self.x[1] - self.x[0], self.x[2] - self.x[0]
        return ig.Slice.square(origin, u, v, radius=radius * float(u.norm()))

    def accuracy(self, model: nn.Module) -> float:
        """Share of right answers of a plain forward pass."""
        with torch.no_grad():
            out = logits(model, self.x)
        answers = (out[:, 0] > 0).long() if out.shape[-1] == 1 else out.argmax(-1)
        return float((answers == self.y).double().mean())

    def family(self) -> Any:
        """Transformations: quarter turns of images, simple functions of vectors."""
        if self.image:
            return ig.family("rotations(4)")
        return [lambda x: 0.5 * x, lambda x: x.flip(-1), lambda x: 1 - x]

    def transformed(self) -> list[Tensor]:
        """The literal orbit of all inputs, without isogon's warps."""
        if self.image:
            return [torch.rot90(self.x, k, (2, 3)) for k in range(4)]
        return [self.x, *(f(self.x) for f in self.family())]


def partition(t: Trial) -> str:
    for radius in (0.001, 0.0001):  # the first that is not too fine
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p = ig.partition(t.model, t.plane(radius), max_regions=200)
        if p.complete:
            break
    finding = p.certify(200, seconds=5)
    wrong = [c.name for c in finding.checks if not c.passed and c.name != "finished"]
    if wrong:
        raise Wrong(f"certificate: {', '.join(wrong)}")
    at = p.plane.embed(np.stack([p.centroid[:50, 0], p.centroid[:50, 1]], 1))
    with torch.no_grad():
        out = logits(t.exact, at.reshape(-1, *t.x.shape[1:])).flatten(1)
    done = p.finished[:50]
    rows = np.stack([p.affine(i)[0] @ p.centroid[i] + p.affine(i)[1] for i in np.flatnonzero(done)])
    if (kept := inside.probabilities(out)) is out:  # logits are known up to a constant
        rows, out = inside.raw(torch.from_numpy(rows).log_softmax(1).exp()), kept
    close(rows, inside.raw(out)[done], 1e-6, "outputs at centroids")
    many = f"{len(p)} regions{'' if p.complete else ', stopped'}"
    return f"certified; outputs at centroids are the network's ({many})"


def boundary(t: Trial) -> str:
    b = ig.boundary(t.model, t.plane(1.0), grid=16, max_pieces=200, seconds=4)
    if not len(b.points) and b.complete:
        grid = np.stack(np.meshgrid(b.arrays["image_x"], b.arrays["image_y"]), -1).reshape(-1, 2)
        with torch.no_grad():
            out = logits(t.exact, t.plane(1.0).embed(grid).reshape(-1, *t.x.shape[1:]))
        seen = (out[:, 0] > 0).long() if out.shape[-1] == 1 else out.argmax(-1)
        if len(seen.unique()) > 1:
            raise Wrong("no boundary, but two classes on the grid")
        return "no boundary, and one class on a grid of points"
    if not len(b.points):
        return ""  # stopped before the first curve, which it says
    at = b.points[:: max(1, len(b.points) // 60)]
    with torch.no_grad():
        x = t.plane(1.0).embed(at).reshape(-1, *t.x.shape[1:])
        out = inside.raw(logits(t.exact, x))
    top = np.sort(out, 1)
    gap = np.abs(top[:, 0]) if out.shape[1] == 1 else top[:, -1] - top[:, -2]
    if gap.max() > 1e-7 * np.abs(out).max():
        raise Wrong(f"gap of the two largest outputs: {gap.max():.2g}")
    return f"the two largest outputs are equal at {len(at)} corners"


def segments(t: Trial) -> str:
    a, b = t.x[0].double(), t.x[0].double() + 0.005 * (t.x[1] - t.x[0]).double()
    s = ig.segments(t.model, a, b)
    found = s.certify(100, seconds=5)
    if not found.passed:
        raise Wrong(f"certificate: {found.verdict}")
    knots = np.concatenate([[0.0], np.asarray(s.breakpoints), [1.0]])
    few = np.arange(len(knots) - 1)[:: max(1, len(knots) // 100)]
    low, high = knots[few], knots[few + 1]
    middle = inside.line(t.exact, a, b, 0.5 * (low + high))
    ends = 0.5 * (inside.line(t.exact, a, b, low) + inside.line(t.exact, a, b, high))
    close(middle, ends, 1e-7, "outputs in the middle of pieces")
    return f"certified; linear between breakpoints, by plain passes ({len(knots) - 1} pieces)"


def local_complexity(t: Trial) -> str:
    c = ig.local_complexity(t.model, t.x[:1], radius=0.05).to_frame()
    return inside.crossings(t.exact, t.x[0].double(), 0.05, c)


def data_matrix(t: Trial) -> str:
    f = ig.data_matrix(t.exact, [(x.double(), y) for x, y in t.two]).to_frame()
    want = inside.trace(t.exact, t.x[0])
    close(f["trace"][0], want, 1e-6, "trace")
    own = ig.data_matrix(t.model, t.two).to_frame()  # some networks lose digits on the way
    rounded = inside.trace(t.model, t.x[0])
    close(
        own["trace"][0],
        want,
        max(1e-3, 3 * abs(rounded - want) / max(want, 1e-300)),
        "trace in float32",
    )
    return "trace by autograd, in float64 and as far as float32 goes"


def integrability(t: Trial) -> str:
    f = ig.integrability(t.model, [(t.x[:1], t.y[:1])]).to_frame()
    return inside.bracket(t.exact, t.x[0], float(f["residual"][0]))


def walk(t: Trial) -> str:
    x = t.x.double()
    w = ig.walk(t.exact, x[:1], toward=x[3:4], step=0.02, steps=3)
    frames = torch.from_numpy(w.arrays["frames"]).double()
    f = w.to_frame()
    with torch.no_grad():
        p = inside.probabilities(logits(t.exact, frames).flatten(1))
    close(f["probability"], p.max(1).values, 1e-3, "probability along the walk")
    far = (frames - x[3:4]).flatten(1).norm(dim=1)
    close(f["distance"], far, 1e-4, "distance along the walk")
    if len(frames) > 1:
        share = inside.off_the_leaf(t.exact, t.x[0], frames[1] - frames[0])
        if share > 1e-2:
            raise Wrong(f"{share:.2g} of the first step is off the leaf")
    return "distances, probabilities; the first step lies in the gradients' span"


def leaf_distance(t: Trial) -> str:
    f = ig.leaf_distance(t.model, t.x[:2], toward=t.x[2:4], step=0.02, steps=3).to_frame()
    close(f["euclidean"], (t.x[:2] - t.x[2:4]).flatten(1).norm(dim=1), 1e-5, "euclidean")
    short = (f["euclidean"] - f["leaf"] - f["remaining"]).max()
    if short > 1e-4:
        raise Wrong(f"path and rest are shorter than the distance, by {short:.2g}")
    return "distances in input space; path and rest are no shorter"


def invariance(t: Trial) -> str:
    f = ig.invariance(t.model, t.data, t.family()).to_frame()
    return inside.orbit(t.model, t.transformed(), f)


def equivariance(t: Trial) -> str:
    f = ig.equivariance(t.model, t.data, t.family(), measures=("variance",)).to_frame()
    return inside.orbit(t.model, t.transformed(), f, back=True)


def orientation(t: Trial) -> str:
    f = ig.orientation(t.model, pointwise=True).to_frame()
    modules = dict(t.model.named_modules())
    for site in (f["site"].iloc[0], f["site"].iloc[-1]):
        m = modules.get(site)
        if not isinstance(m, nn.Linear | nn.Conv2d) or isinstance(m, nn.ConvTranspose2d):
            continue
        w = m.weight.detach().double().flatten(1)
        want = w.sum(1) / (w.norm(dim=1) * w.shape[1] ** 0.5)
        close(f[f["site"] == site]["cosine"], want, 1e-5, f"cosine of {site}")
        return f"cosines of the filters of {site}"
    return ""


def reset(t: Trial) -> str:
    state = {k: v.clone() for k, v in t.other.state_dict().items()}
    r = ig.reset(t.model, {"other": state}, t.data, bootstrap=0)
    f = r.to_frame()
    close(r.meta["accuracy"], t.accuracy(t.model), 1e-9, "accuracy")
    site = str(f["site"].iloc[-1])
    changed = copy.deepcopy(t.model)
    layer = changed.get_submodule(site)
    layer.load_state_dict({k: state[f"{site}.{k}"] for k in layer.state_dict()})
    close(f["accuracy"].iloc[-1], t.accuracy(changed), 1e-9, f"accuracy with {site} reset")
    return f"accuracy, and with {site} put back, by plain passes"


def homogeneity(t: Trial) -> str:
    return inside.homogeneous(t.model, t.x, ig.homogeneity(t.model, t.data).to_frame())


def rotate(t: Trial) -> str:
    sites = ig.sites(t.model, "activations", example=t.x[:2])
    for site in reversed(sites):  # the last that cuts the graph
        try:
            f = ig.rotate(
                t.model, ig.group("permutations"), t.data, t.data, epochs=0, sites=site.name
            ).to_frame()
        except ig.errors.NotACut:
            continue
        close(f["baseline"], [t.accuracy(t.model)] * len(f), 1e-9, "baseline")
        return f"accuracy with the identity behind {site.name}"
    f = ig.rotate(t.model, ig.group("permutations"), t.data, t.data, epochs=0).to_frame()
    close(f["baseline"], [t.accuracy(t.model)] * len(f), 1e-9, "baseline")
    return "accuracy with the identity behind all sites"


def dissect(t: Trial) -> str:
    if not t.image:
        maps = torch.arange(len(t.x)) % 2 + 1
        ig.dissect(t.model, [(t.x, {"half": maps})])
        return ""
    maps = (t.x.mean(1) * 6).long().clamp(0, 3)
    return inside.overlap(t.model, t.x, maps, ig.dissect(t.model, [(t.x, maps)]).to_frame())


def similarity(t: Trial) -> str:
    f = ig.similarity(t.model, t.other, t.data, pairs="diagonal").to_frame()
    return inside.kernels_alike(t.model, t.other, t.x, f)


def match(t: Trial) -> str:
    m = ig.match(t.model, t.other, example=t.x[:2])
    moved = m.apply(t.other)
    with torch.no_grad():
        image, own = (logits(double(m), t.x.double()) for m in (moved, t.other))
        rounding = float((logits(t.other, t.x) - own).abs().max() / own.abs().max())
    close(image, own, max(1e-5, 4 * rounding), "function of the image")  # its weights are float32
    return "the image computes b's function, within float32"


def barrier(t: Trial) -> str:
    f = ig.barrier(t.model, t.other, t.data, points=3).to_frame()
    mixed = copy.deepcopy(t.model)
    b = dict(t.other.state_dict())
    state = t.model.state_dict()  # with the versions of modules
    state.update({k: (v + b[k]) / 2 for k, v in state.items() if v.is_floating_point()})
    mixed.load_state_dict(state)
    for k, model in enumerate((t.model, mixed, t.other)):
        with torch.no_grad():
            out = logits(model, t.x).double()
        close(f["accuracy"][k], t.accuracy(model), 1e-9, f"accuracy at {k / 2}")
        if out.shape[1] > 1:
            own = inside.probabilities(out).log()[torch.arange(len(out)), t.y]
            close(f["loss"][k], float(-own.mean()), 1e-4, f"loss at {k / 2}")
    return "loss and accuracy at both ends and in the middle, by plain passes"


def stitch(t: Trial) -> str:
    f = ig.stitch(t.model, t.other, t.data, t.data, by="identity").to_frame()
    return inside.stitched(t.model, t.other, t.x, t.accuracy, f)


ONE: dict[str, Callable[[Trial], str]] = {
    f.__name__: f
    for f in (
        partition, boundary, segments, local_complexity, data_matrix, integrability, walk,
        leaf_distance, invariance, equivariance, orientation, reset, homogeneity, rotate, dissect,
    )
}  # fmt: skip
TWO: dict[str, Callable[[Trial], str]] = {
    f.__name__: f for f in (similarity, match, barrier, stitch)
}


def evolution(t: Trial) -> str:
    state = {k: v.clone() for k, v in t.other.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = ig.evolution(
            t.model, {"other": state}, t.plane(0.0002), train=t.data, test=t.data, max_regions=100
        ).to_frame()
    close(f["test_accuracy"], [t.accuracy(t.other), t.accuracy(t.model)], 1e-9, "test accuracy")
    return "accuracy of both states, by plain passes"


ONE["evolution"] = evolution
