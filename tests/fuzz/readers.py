"""Every reader of isogon, with valid files for it: what the fuzzer spoils and the bombs attack."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow.parquet  # noqa: F401
import torch
import torch.export
import torchvision  # noqa: F401
from mutate import mutated
from PIL import Image

import isogon as ig
from isogon import context, readings, specs, storage
from isogon.cli.parser import derived
from isogon.data import batches
from isogon.data.unpickle import read_pickle
from isogon.errors import IsogonError
from isogon.measures import partition  # noqa: F401 (kernels find their cache at import)
from isogon.nets.load import build, load
from isogon.nets.weights import read_weights
from isogon.survey.declaring import catalogue, plan
from isogon.survey.running import record
from isogon.survey.running.sweep import Sweep
from isogon.survey.whole.survey import Line, Survey, read_survey

warnings.filterwarnings("ignore")
__all__ = ["READERS", "IsogonError", "cases", "seeds"]

# --------------------------------------------------------------------------- reading


def spec(path: Path) -> None:
    for line in path.read_bytes().decode("utf-8", "replace").splitlines()[:20]:
        text = str(specs.parse(line))
        assert str(specs.parse(text)) == text


def config(path: Path) -> None:
    declaration = catalogue.declaration("data-matrix")
    derived(declaration, out=None).parse(["--config", str(path)])


def arrays(path: Path) -> None:
    storage.read_metadata(path)
    for framework in ("np", "pt"):
        storage.read_tensors(path, framework=framework)


def checkpoint(path: Path) -> None:
    from isogon.training.checkpoint import Checkpoint

    try:
        load(path)
    except IsogonError:
        Checkpoint.load(path).model()


def reading(path: Path) -> None:
    readings.read(path.parent).to_frame()


def kept_record(path: Path) -> None:
    record.scan(path.parents[1])
    record.load(path.parent)


def whole_survey(path: Path) -> None:
    read_survey(path.parent).records()


def sweep(path: Path) -> None:
    held = Sweep.read(path.parent)
    held.states(set())
    held.missing(retry=True)


def state(path: Path) -> None:
    sweep(path.parents[1] / "plan.json")


def data(form: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        root = Path.cwd()
        with context.use(cache_root=root / "cache", data_root=root):
            for x, y in batches(form.format(path=path, root=root)):
                del x, y

    return read


READERS: dict[str, Callable[[Path], Any]] = {
    "spec": spec,
    "plan": plan.read_plan,
    "config": config,
    "json": storage.read_json,
    "safetensors": arrays,
    "checkpoint": checkpoint,
    "pt": read_weights,
    "onnx": load,
    "pt2": load,
    "table": storage.read_table,
    "reading": reading,
    "record": kept_record,
    "survey": whole_survey,
    "sweep": sweep,
    "state": state,
    "pickle": read_pickle,
    "npz": data("npz('{path}')"),
    "idx": data("mnist(test)"),
    "idx-gz": data("mnist(test)"),
    "zip": data("imagefolder('{path}', size=8)"),
    "image": data("imagefolder('{root}/set')"),
    "sounds": data("audiofolder('{path}', length=32)"),
}

# --------------------------------------------------------------------------- valid files


def _bytes(write: Callable[[Any], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 4), torch.nn.ReLU(),
                               torch.nn.Linear(4, 3)).eval()  # fmt: skip


def _safetensors(folder: Path, name: str, tensors: Any, metadata: Any = None) -> bytes:
    storage.write_tensors(folder / name, tensors, metadata)
    return (folder / name).read_bytes()


def _checkpoint(folder: Path, text: str) -> bytes:
    model = build(text)
    meta = {
        "format": 1, "spec": text, "normalize": {"mean": [0.5], "std": [0.5]}, "data": "digits",
        "shape": [1, 8, 8], "classes": ["a", "b"], "config": {"epochs": 1}, "seed": 0, "epoch": 1,
        "step": 3, "batch": 0, "metrics": {"loss": 1.0}, "history": [{"loss": 1.0}], "state": {},
        "versions": {},
    }  # fmt: skip
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    return _safetensors(folder, "c.safetensors", tensors, {"isogon": json.dumps(meta)})


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"site": [f"layer{i % 3}" for i in range(40)], "unit": np.arange(40),
                         "value": rng.normal(size=40), "live": np.arange(40) % 2 == 0})  # fmt: skip


def _reading() -> readings.Reading:
    return readings.SampleTable(
        measure="data_matrix", table=_frame(), arrays={"x": np.arange(6.0).reshape(2, 3)},
        axes={"x": ("a", "b")}, coords={"a": [1, 2]}, units={"value": "1"}, meta={"n": 3},
    )  # fmt: skip


def _zip(members: dict[str, bytes], method: int) -> bytes:
    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", method) as out:
            for name, held in members.items():
                out.writestr(name, held)

    return _bytes(write)


def _picture(kind: str) -> bytes:
    shade = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    return _bytes(lambda file: Image.fromarray(shade).save(file, kind))


def _sound() -> bytes:
    import wave

    def write(file: Any) -> None:
        with wave.open(file, "wb") as out:
            out.setparams((1, 2, 8000, 40, "NONE", ""))
            out.writeframes(np.arange(40, dtype="<i2").tobytes())

    return _bytes(write)


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _exported(folder: Path, to: str) -> bytes:
    path, x = folder / f"n.{to}", torch.zeros(2, 1, 2, 4)
    dynamic = ({0: torch.export.Dim("batch")},)
    if to == "pt2":
        torch.export.save(torch.export.export(_network(), (x,), dynamic_shapes=dynamic), path)
    else:
        from onnx import TensorProto, helper, numpy_helper

        def weight(name: str, value: Any) -> Any:
            return numpy_helper.from_array(np.asarray(value), name)

        ones = np.linspace(-1, 1, 32, dtype=np.float32)
        nodes = [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
            helper.make_node("Reshape", ["x", "to"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("ConstantOfShape", ["four"], ["c"]),
            helper.make_node("Add", ["r", "c"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes, "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 2, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
            [weight("w", ones.reshape(4, 8)), weight("b", ones[:4]), weight("zero", np.array([0])),
             weight("rest", np.array([8])), weight("four", np.array([4]))],
        )  # fmt: skip
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path.read_bytes()


PLAN = b"""title: A plan
scales: {laptop: {epochs: 2}, paper: {epochs: 20}}
axes: {seed: [0, 1]}
model: &m
  plain: trained(cnn, digits, epochs={epochs}, seed={seed})
  other: mlp(8, depth=2)
batches: digits(test, 16)
measures:
  - name: data-matrix
    tolerances: [[0.001, 1e-6]]
  - {name: invariance, family: [rotations(4), 'rotations(8)'], aggregate: channel}
figures:
  - panels: family
"""
CONFIG = b"""model: cnn(width=4)
batches: digits(test, 8)
tolerances: [1e-3, 1e-6]
seed: 3
batch_size: null
quiet: true
"""
SPECS = b"""trained(cnn(width=4), digits(train, 16), epochs=2, seed=0)
product(rotations(8), translations(2, axis='x'))[3]
resnet18(num_classes=10)@runs/w.safetensors
my.pkg:build(3, a=(1, 2.5, None), b=-inf)@w.pt
npz('a b.npz', test)
"""


def seeds(reader: str, folder: Path) -> list[tuple[str, bytes]]:
    """Valid files of a reader: where under the folder, and what is in them.

    The first part of a name may be a folder of further files, which are written too.
    """
    weights = {k: v.numpy() for k, v in _network().state_dict().items()}
    images = {f"test/{c}/{i}.png": _picture("PNG") for c in "ab" for i in range(2)}
    if reader in ("reading", "record", "survey", "sweep", "state"):
        return _folders(reader, folder)
    made: dict[str, Callable[[], list[tuple[str, bytes]]]] = {
        "spec": lambda: [("s.txt", SPECS)],
        "plan": lambda: [("p.yaml", PLAN)],
        "config": lambda: [("c.yaml", CONFIG)],
        "json": lambda: [("v.json", json.dumps(
            {"a": [1, 2.5, None, True, {"b": "text", "$float": "nan"}], "c": {"$float": "inf"}}
        ).encode())],
        "safetensors": lambda: [("t.safetensors", _safetensors(
            folder, "t.safetensors", {**weights, "i": np.arange(3), "h": np.ones(2, np.float16)},
            {"a": "b"}))],
        "checkpoint": lambda: [
            ("c.safetensors", _checkpoint(folder, text))
            for text in ("mlp(4, depth=2, inputs=9)", "siren(4, 2)", "normalized(mlp(4, inputs=9))")
        ],
        "pt": lambda: [
            ("w.pt", _bytes(lambda f: torch.save(_network().state_dict(), f))),
            ("w.pt", _bytes(lambda f: torch.save(
                _network().state_dict(), f, _use_new_zipfile_serialization=False))),
        ],
        "onnx": lambda: [("n.onnx", _exported(folder, "onnx"))],
        "pt2": lambda: [("n.pt2", _exported(folder, "pt2"))],
        "table": lambda: [("t.parquet", _table(folder))],
        "pickle": lambda: [
            ("p", pickle.dumps({b"data": np.zeros((2, 30), np.uint8), b"labels": [0, 1] * 20,
                                b"names": [b"a", "b", 2.5, None]}, protocol))
            for protocol in (0, 2, 4)
        ],
        "npz": lambda: [
            ("a.npz", _bytes(partial(save, x=np.arange(40.0).reshape(10, 4), y=np.arange(10) % 2)))
            for save in (np.savez, np.savez_compressed)
        ],
        "idx": lambda: [("MNIST/raw/t10k-images-idx3-ubyte", _idx(np.ones((3, 28, 28), np.uint8)))],
        "idx-gz": lambda: [("MNIST/raw/t10k-images-idx3-ubyte.gz",
                            gzip.compress(_idx(np.ones((3, 28, 28), np.uint8)), mtime=0))],
        "zip": lambda: [("i.zip", _zip(images, m)) for m in (0, zipfile.ZIP_DEFLATED)],
        "image": lambda: [
            (f"set/a/x.{suffix}", _picture(kind))
            for kind, suffix in (("PNG", "png"), ("GIF", "gif"), ("JPEG", "jpg"), ("BMP", "bmp"),
                                 ("TIFF", "tif"), ("WEBP", "webp"), ("PPM", "ppm"))
        ],
        "sounds": lambda: [("s.zip", _zip({"a/x.wav": _sound(), "b/y.wav": _sound()}, 0))],
    }  # fmt: skip
    if reader.startswith("idx"):
        labels = folder / "MNIST/raw/t10k-labels-idx1-ubyte"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_bytes(_idx(np.arange(3, dtype=np.uint8)))
    return made[reader]()


def _table(folder: Path) -> bytes:
    storage.write_table(folder / "t.parquet", _frame())
    return (folder / "t.parquet").read_bytes()


def _folders(reader: str, folder: Path) -> list[tuple[str, bytes]]:
    """Folders of several files, one of which is spoiled."""
    job = record.Job("data_matrix", {"model": "cnn()", "batches": "digits(test)"}, {"x": (1.5,)})
    if reader == "reading":
        _reading().save(folder / "r")
        return [("r/reading.json", (folder / "r/reading.json").read_bytes())]
    if reader in ("record", "survey"):
        record.Record(job, _reading(), {"seconds": 1.0, "versions": {"isogon": "1"}}, "k").save(
            folder / "records" / "k"
        )
        if reader == "record":
            file = "records/k/record.json"
            return [(file, (folder / file).read_bytes())]
        line = Line("data_matrix", "done", record="records/k", seconds=1.0)
        Survey("cnn()", "digits(test)", {"n": 3}, [line], directory=folder).save()
        return [("survey.json", (folder / "survey.json").read_bytes())]
    yaml = folder / "p.yaml"
    yaml.write_bytes(b"model: cnn()\nbatches: digits(test)\nmeasures: [data-matrix]\n")
    held = Sweep.create(folder, plan.read_plan(yaml))
    if reader == "sweep":
        return [("plan.json", (folder / "plan.json").read_bytes())]
    for id in held.jobs:
        held.put(held.state(id))
    return [
        (str(p.relative_to(folder)), p.read_bytes()) for p in sorted(folder.glob("state/*.json"))
    ]


# --------------------------------------------------------------------------- cases


def cases(task: dict[str, Any], folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The inputs of a task one by one, each written to its place just before it is read."""
    if "cases" in task:
        for reader, name in task["cases"]:
            read, path = READERS[reader], folder / name
            os.chdir(next((p.parent for p in path.parents if p.name == "MNIST"), folder))
            yield f"{reader} {name}", lambda read=read, path=path: read(path)
        return
    for reader, count in task["readers"].items():
        home = folder / reader
        home.mkdir(parents=True, exist_ok=True)
        os.chdir(home)
        valid = seeds(reader, home)
        rng = np.random.default_rng([task["seed"], len(reader), *reader.encode()])
        others = [content for _, content in valid]
        for k in range(-len(valid), count):
            name, content = valid[k % len(valid)]
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for sibling in {home / n for n, _ in valid} - {path}:
                sibling.unlink(missing_ok=True)
            path.write_bytes(content if k < 0 else mutated(content, others, rng, reader))
            yield f"{reader} {k}", lambda read=READERS[reader], path=path: read(path)


assert ig  # the whole public name space can be imported
