"""Figures of partitions: what is on them, and that a hundred thousand regions take seconds."""

from __future__ import annotations

import io
import time

import matplotlib.colors as mc
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection, TriMesh
from PIL import Image
from torch import nn

import isogon as ig
from isogon.cpwl.program import mlp
from isogon.errors import IncompleteWarning, OptionError
from isogon.measures.partition.decisions import class_areas, class_at, clipped, decisions
from isogon.show import mesh, style
from isogon.show.class_places import partition_places
from isogon.show.evolution import animate
from isogon.show.partition import GROUND

BOX = ig.Slice.box2d((-1, -1), (1, 1))


def net(outputs: int, seed: int = 0, width: int = 10) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                             nn.Linear(width, outputs))  # fmt: skip


@pytest.fixture(scope="module")
def classes():
    return ig.partition(net(4), BOX)


@pytest.fixture(scope="module")
def sdf():
    model = net(1, 3)
    with torch.no_grad():
        middle = model(2 * torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) - 1)
        model[-1].bias -= middle.median()  # both signs occur
    return ig.partition(model, BOX)


def pixels(fig, dpi=100) -> np.ndarray:
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=dpi)
    return np.asarray(Image.open(buffer).convert("RGB")).astype(float) / 255


def test_decisions_are_the_networks_own(classes, sdf, generator):
    for p in (classes, sdf):
        faces = decisions(p)
        sizes = np.diff(faces.offsets)
        corners = [faces.vertices[loop] for loop in np.split(faces.loops, np.cumsum(sizes)[:-1])]
        area = np.zeros(len(p))
        for k, polygon in enumerate(corners):
            assert len(polygon) >= 3
            x, y = (polygon - polygon[0]).T
            own = 0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
            assert own > -1e-15
            area[faces.region[k]] += own
            value = p.program.evaluate(torch.from_numpy(polygon.mean(0)[None])).numpy()[0]
            expected = int(value[0] > 0) if len(value) == 1 else int(value.argmax())
            if own > 1e-9:
                assert faces.label[k] == expected
        assert np.allclose(area, p.area, atol=1e-14)
        assert len(sizes) > len(p)  # some regions are cut


@pytest.fixture(scope="module")
def plain():
    """One region that three classes share."""
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.4, -0.9]])
        layer.bias[:] = torch.tensor([0.1, 0.0, -0.2])
    return ig.partition(layer, BOX)


def test_classes_at_points_are_the_networks_own(classes, sdf, plain, generator):
    points = 2 * torch.rand(3000, 2, dtype=torch.float64, generator=generator) - 1
    for p in (classes, sdf, plain):
        z = p.program.evaluate(points).numpy()
        z = np.concatenate([0 * z, z], 1) if z.shape[1] == 1 else z
        best = np.sort(z, 1)
        clear = best[:, -1] - best[:, -2] > 1e-12
        assert (class_at(p, points.numpy()) == z.argmax(1))[clear].all()
        crossed = np.isin(p.locate(points.numpy()), p.boundary_region)
        assert crossed.sum() > 100
    assert (class_at(plain, np.array([[2.0, 0.0]])) == -1).all()


def test_areas_of_classes_are_those_of_the_network(classes, sdf, plain):
    side = 500
    x = (np.arange(side) + 0.5) / side * 2 - 1
    points = torch.from_numpy(np.stack(np.meshgrid(x, x), -1).reshape(-1, 2))
    for p in (classes, sdf, plain):
        found = class_areas(p)
        assert sum(found.values()) == pytest.approx(4, rel=1e-12)
        z = p.program.evaluate(points).numpy()
        own = (z[:, 0] > 0).astype(int) if z.shape[1] == 1 else z.argmax(1)
        # cells that the boundary crosses count whole or not at all
        ends = p.boundary
        length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).sum()
        for k, area in found.items():
            assert abs(area - 4 * (own == k).mean()) < length * 2 / side
        by_centroid = {int(k): float(p.area[p.label == k].sum()) for k in np.unique(p.label)}
        assert max(abs(by_centroid.get(k, 0.0) - a) for k, a in found.items()) > 1e-4


def test_all_classes_of_a_region_are_told(plain, tmp_path):
    """The boundary crosses the one region: its centroid's class is not all."""
    assert len(plain) == 1
    areas = class_areas(plain)
    assert len(areas) == 3
    labels = [t.get_text() for t in ig.draw(plain).axes[0].get_legend().get_texts()]
    assert labels == [*(f"class {k}" for k in sorted(areas)), "boundary"]
    page = plain.to_html(tmp_path / "p.html").read_text()
    for k, area in areas.items():
        assert f'[{k}, "class {k}", "{25 * area:.3g} %"]' in page
    assert "1 region<" in page
    said = " ".join(f.text for f in ig.findings.findings(plain))
    assert "3 classes share the slice" in said
    assert "no decision boundary" not in said


def test_a_page_says_that_there_is_one_class(tmp_path):
    p = ig.partition(net(3), ig.Slice.box2d((0.1, 0.1), (0.11, 0.11)))
    assert not len(p.boundary)
    k = int(p.label[0])
    assert f"all class {k}" in p.to_html(tmp_path / "a.html").read_text()
    named = p.to_html(tmp_path / "b.html", names=["cat", "dog", "cow"]).read_text()
    assert f"all {['cat', 'dog', 'cow'][k]}" in named


def test_clipping():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    half = clipped(square, square[:, [0]] - 0.25)  # x >= 1/4
    assert sorted(map(tuple, half)) == [(0.25, 0), (0.25, 1), (1, 0), (1, 1)]
    assert np.array_equal(clipped(square, np.ones((4, 2))), square)
    assert len(clipped(square, -np.ones((4, 1)))) == 0


@pytest.mark.parametrize("color", ["class", "area", "slope", "random", "output"])
def test_every_colour(classes, sdf, color):
    for p in (classes, sdf)[color != "class" :]:
        fig = ig.draw(p, color=color, edges=False)
        ax = fig.axes[0]
        kind = TriMesh if color == "output" else PathCollection
        assert any(isinstance(c, kind) for c in ax.collections)
        assert f"{len(p):,}" in ax.get_title(loc="left")
        assert pixels(fig, 40).std() > 0.05


def test_wrong_options_are_refused(classes):
    with pytest.raises(OptionError, match="slope"):
        ig.draw(classes, color="blue")
    with pytest.raises(OptionError, match=r"0\.\.3"):
        ig.draw(classes, color="output", output=4)


def test_the_picture_shows_the_class_at_a_point(sdf):
    """Colours in the picture, read back where they are, are those of the sign there."""
    p = sdf
    fig = ig.draw(p, edges=False, boundary=False, anchors=False)
    image = pixels(fig, 100)
    # colours nearer to blue or to orange
    blue, orange = (np.array(mc.to_rgb(c)) for c in style.CYCLE[:2])
    grid = np.stack(np.meshgrid(*[np.linspace(-0.95, 0.95, 24)] * 2), -1).reshape(-1, 2)
    value = p.program.evaluate(torch.from_numpy(grid)).numpy()[:, 0]
    at = fig.axes[0].transData.transform(grid) / fig.get_dpi() * 100
    rows, columns = len(image) - 1 - at[:, 1], at[:, 0]
    seen = image[rows.round().astype(int), columns.round().astype(int)]
    share = ((seen - (1 - 0.5 * (1 - blue))) ** 2).sum(1) < (
        (seen - (1 - 0.5 * (1 - orange))) ** 2
    ).sum(1)
    clear = np.abs(value) > 0.01
    assert clear.sum() > 400
    assert (share == (value < 0))[clear].mean() > 0.99


def test_anchors_are_numbered_and_classes_named(sdf):
    a, b = torch.tensor([0.2, 0.1]), torch.tensor([-0.4, 0.3])
    p = ig.partition(net(3), ig.Slice.anchors(a, b, radius=1.0))
    ax = ig.draw(p).axes[0]
    assert [t.get_text() for t in ax.texts[:2]] == ["1", "2"]
    named = {t.get_text().removeprefix("class ") for t in ax.texts[2:]}
    assert named
    assert named <= {str(k) for k in np.unique(p.label)}
    for place in partition_places(p):
        assert p.label[p.locate(np.array([[place.x, place.y]]))[0]] == place.label
    assert len(ig.draw(p, labels=False).axes[0].texts) == 2
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert {f"class {k}" for k in np.unique(p.label)} <= set(labels)
    ax = ig.draw(sdf).axes[0]
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["output < 0", "output > 0", "zero set"]


def test_shading_is_linear_on_each_region(sdf):
    fig = style.figure(3, 3)
    ax = fig.subplots()
    found = mesh.shaded(ax, sdf.vertices, sdf.face_offsets, sdf.face_vertices, sdf.outputs[:, 0])
    triangles = found._triangulation.triangles
    assert len(triangles) == (np.diff(sdf.face_offsets) - 2).sum()
    x, y = sdf.vertices[triangles].transpose(2, 0, 1)
    twice = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    assert twice.sum() / 2 == pytest.approx(4)


def test_a_hundred_thousand_regions_take_seconds():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(600, 2, generator=g, dtype=torch.float64)
    b = 0.5 * torch.randn(600, generator=g, dtype=torch.float64)
    p = ig.partition(mlp([w, torch.randn(3, 600, generator=g).double()], [b, None]), BOX)
    assert len(p) > 60_000
    _ = p.label, p.boundary
    clock = time.process_time()
    fig = ig.draw(p)
    pixels(fig)
    assert time.process_time() - clock < 6  # 2 s; room for a busy machine
    paths = sum(len(c.get_paths()) for ax in fig.axes for c in ax.collections)
    assert paths < 500
    assert fig.get_dpi() >= mesh.DPI  # as pixels: dense enough ones


def test_edges_of_every_layer_are_seen_at_twenty_thousand_regions():
    """No layer is hidden by the others, and together they leave their ground in sight."""
    g = torch.Generator().manual_seed(0)
    sizes = [(70, 2), (70, 70), (70, 70), (70, 70), (3, 70)]
    w = [torch.randn(s, generator=g, dtype=torch.float64) * (2 / s[1]) ** 0.5 for s in sizes]
    b = [0.3 * torch.randn(s[0], generator=g, dtype=torch.float64) for s in sizes]
    p = ig.partition(mlp(w, b), BOX)
    assert len(p) > 20_000
    fig = ig.draw(p, anchors=False, boundary=False)
    image = pixels(fig, 200)
    (x0, y0), (x1, y1) = fig.axes[1].transData.transform([[-0.97, -0.97], [0.97, 0.97]])
    scale = 200 / fig.get_dpi()
    rows = slice(int(len(image) - y1 * scale), int(len(image) - y0 * scale))
    panel = image[rows, int(x0 * scale) : int(x1 * scale)]
    ground = np.abs(panel - mc.to_rgb(GROUND)).max(-1) < 0.03
    assert ground.mean() > 0.15
    colors = np.array(style.layers(len(p.sites)))
    apart = np.abs(panel[..., None, :] - colors).max(-1)
    for layer in range(len(p.sites)):
        assert (apart[..., layer] < 0.12).mean() > 0.005, layer


@pytest.fixture(scope="module")
def evolution():
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(40, 2, generator=g) - 1
    train, test = [(x[:20], (x[:20, 0] > 0).long())], [(x[20:], (x[20:, 0] > 0).long())]
    given = {f"epoch-{k}": net(2, k) for k in (1, 2, 3)}
    return ig.evolution(net(2), given, BOX, train=train, test=test)


@pytest.mark.parametrize("color", ["class", "area"])
def test_evolution_has_pictures_and_curves(evolution, color):
    fig = ig.draw(evolution, color=color, pictures=3)
    titles = [ax.get_title() or ax.get_title(loc="left") for ax in fig.axes]
    assert sum("epoch-" in t or t == "model" for t in titles) == 3
    assert any("Density and gap" in t for t in titles)
    assert pixels(fig, 50).std() > 0.05
    plain = ig.draw(evolution, pictures=0)
    assert len(plain.axes) == 4  # three panels and a colour bar
    with pytest.raises(OptionError, match="class or area"):
        ig.draw(evolution, color="slope")


def test_evolution_without_data_or_frames():
    found = ig.evolution(net(2), {"1": net(2, 1)}, BOX, frames=0)
    assert len(ig.draw(found).axes) == 3
    with pytest.raises(OptionError, match="frames"):
        animate(found, "never.gif")


def test_the_film_keeps_slice_and_colours(evolution, tmp_path):
    path = animate(evolution, tmp_path / "film.gif", size=240, seconds=1.0)
    film = Image.open(path)
    assert film.n_frames == len(evolution.frames) == 4
    assert film.size[0] == 240
    frames = []
    for k in range(film.n_frames):
        film.seek(k)
        frames.append(np.asarray(film.convert("RGB")).astype(int))
    assert len({f.shape for f in frames}) == 1
    assert any(np.abs(frames[0] - f).max() > 60 for f in frames[1:])
    colours = [{tuple(c) for c in f[60:-20, 20:-20].reshape(-1, 3)} for f in frames]
    base = {tuple(c) for c in frames[0][60:-20, 20:-20].reshape(-1, 3)}
    assert all(base & c for c in colours)


def test_unfinished_regions_are_hatched():
    with pytest.warns(IncompleteWarning, match="of 20 regions, .* not cut to the end"):
        p = ig.partition(net(4), BOX, max_regions=20)
    hatch = {}
    for color in ("class", "slope", "area", "output", "random"):
        figure = ig.draw(p, color=color)
        shapes = [c for c in figure.axes[0].collections if c.get_hatch()]
        hatch[color] = sum(len(path.vertices) for c in shapes for path in c.get_paths())
        assert f"{int((~p.finished).sum())} unfinished" in figure.axes[0].get_title(loc="left")
    left = np.flatnonzero(~p.finished)
    corners = int(np.diff(p.face_offsets)[left].sum()) + len(left)
    assert hatch == {"class": corners, "slope": corners, "output": corners, "random": corners,
                     "area": 0}  # fmt: skip
    with pytest.warns(IncompleteWarning, match="2 of 2 partitions stopped early"):
        found = ig.evolution(net(4), {"1": net(4, 1)}, BOX, max_regions=20)
    assert (found.table["unfinished"] > 0).all()
    shapes = [c for ax in ig.draw(found).axes for c in ax.collections if c.get_hatch()]
    assert shapes
    whole = ig.draw(ig.partition(net(4), BOX))
    assert not [c for ax in whole.axes for c in ax.collections if c.get_hatch()]


def test_the_verdict_is_under_the_figure(classes):
    p = ig.partition(net(4), BOX)
    assert "certified" not in ig.draw(p).get_supxlabel()
    verdict = p.certify(50).verdict
    assert verdict in ig.draw(p).get_supxlabel()
    points = torch.tensor([[-1.0, 0.3], [1.0, 0.5]])
    s = ig.segments(net(4), *points)
    verdict = s.certify().verdict
    assert verdict in ig.draw(s).get_supxlabel()
