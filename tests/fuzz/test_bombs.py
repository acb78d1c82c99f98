"""Small files that ask for much: refused quickly, in little memory, with the cap in the refusal."""

from __future__ import annotations

import copy
import gzip
import inspect
import io
import json
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
import watched
from onnx import TensorProto, helper, numpy_helper

from isogon import hints, registry, storage

MOST_SECONDS, MOST_BYTES = 8.0, 2**28


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """What became of every bomb, by group and name; all are read by one process."""
    folder = tmp_path_factory.mktemp("bombs")
    cases, group = [], {}
    for make in GROUPS:
        found = make(folder / make.__name__)
        cases += [[reader, f"{make.__name__}/{name}"] for reader, name in found]
    said = watched.run(folder, cases=cases, memory=2**30, seconds=MOST_SECONDS)
    assert [x["case"] for x in said] == [f"{r} {n}" for r, n in cases], said[-1]
    for line in said:
        _, path = line["case"].split(maxsplit=1)
        home, name = path.split("/", 1)
        group.setdefault(home, {})[name] = line
    return group


def check(found):
    """All refused, soon and in little memory; what each refusal said."""
    assert [x for x in found.values() if x["outcome"] != "refused"] == []
    assert [x for x in found.values() if x["peak"] > MOST_BYTES] == []
    return {name: x["detail"] for name, x in found.items()}


def written(folder, reader, files):
    cases = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        cases.append([reader, name])
    return cases


# --------------------------------------------------------------------------- text


def laughs(first: str, each: str, levels: int = 9) -> str:
    """Anchors of anchors: nine references to the line above, line by line."""
    lines = [f"a0: &a0 {first}"]
    for k in range(1, levels):
        lines.append(f"a{k}: &a{k} " + each.format(", ".join([f"*a{k - 1}"] * 9)))
    return "\n".join(lines) + "\n"


TEXTS = {
    "aliases": laughs("[x, x, x, x, x, x, x, x, x]", "[{}]"),
    "merges": laughs("{x: 1, y: 2}", "{{<<: [{}]}}"),
    "long": "a: &a " + "x" * 60_000 + "\nb: [" + "*a, " * 1000 + "1]\n",
    "self": "model: &a [*a]\n",
    "within": "&a [&b [*a, *b]]\n",
    "null": "model: cnn()\nnull: 3\n",
    "deep": "model: " + "[" * 5000 + "\n",
    "blocks": "model:\n" + "- " * 2000 + "x\n",
    "number": "model: 0x" + "f" * 60_000 + "\n",
    "sixty": "model: " + ":".join(["59"] * 20_000) + "\n",
    "tag": "model: !!python/object/apply:os.system [x]\n",
    "binary": "model: !!binary aaaa\n",
    "twice": "--- a\n--- b\n",
}


def chained(opening: str, closing: str) -> str:
    """Axes, or values of a scale, that each stand for forty times the next one."""
    parts = [("{a" + str(k + 1) + "}") * 40 for k in range(9)]
    return ", ".join(f"a{k}: {opening}{part}{closing}" for k, part in enumerate(parts))


REST = "batches: digits(test)\nmeasures: [data-matrix]\n"
MODELS = ", ".join(f"m{k}" for k in range(100_000))
SEEDS, MEASURES = ", ".join(map(str, range(9000))), ", ".join(["data-matrix"] * 9000)
PLANS = {
    "axes": "axes: {" + chained("['", "']") + "}\nmodel: cnn(width={a0})\n" + REST,
    "scales": "scales: {s: {" + chained("'", "'") + "}}\nmodel: ['x{a0}']\n" + REST,
    "pairs": f"model: [{MODELS}]\nbatches: digits(test)\npairs: [similarity]\n",
    "entries": f"axes: {{seed: [{SEEDS}]}}\nmodel: cnn()\nbatches: digits(test)\n"
    f"measures: [{MEASURES}]\n",
}


def yaml(folder):
    plans = written(folder, "plan", {f"{k}.yaml": v for k, v in {**TEXTS, **PLANS}.items()})
    configs = written(folder, "config", {f"c-{k}.yaml": v for k, v in TEXTS.items()})
    return plans + configs


def test_yaml(lines):
    said = check(lines["yaml"])
    assert "at most 200000 values" in said["aliases.yaml"]
    assert "at most 200000 values" in said["c-aliases.yaml"]
    assert "inside its own anchor" in said["self.yaml"]
    assert "key None" in said["null.yaml"]
    assert "at most 200000 values" in said["axes.yaml"]
    assert "81000000 jobs, expected <= 100000" in said["entries.yaml"]


def texts(folder):
    specs = ["f(" + "-" * n + "1)" for n in (500, 1200, 3000, 8000)]
    specs += ["f(" + "g(" * 90 + ")" * 90 + ")", "f(" + "(" * 90 + ")" * 90 + ")"]
    specs += ["f(0x" + "f" * 5000 + ")", "f(" + "not " * 1500 + "1)", "f(a" + "[0]" * 2500 + ")"]
    cases = written(folder, "spec", {f"{k}.txt": text for k, text in enumerate(specs)})
    deep = {"list": "[" * 100_000, "dict": '{"a":' * 100_000, "closed": "[" * 70 + "]" * 70}
    return cases + written(folder, "json", {f"{k}.json": text for k, text in deep.items()})


def test_specs_and_json(lines):
    check(lines["texts"])


# --------------------------------------------------------------------------- pickles and zips


def memo_bomb() -> bytes:
    """Lists of ten references to the list before: 10^25 values in 276 bytes."""
    made = b"\x80\x02]q\x00(" + b"K\x00" * 10 + b"e"
    for k in range(1, 10):
        made += b"]q" + bytes([k]) + b"(" + (b"h" + bytes([k - 1])) * 10 + b"e"
    return made + b"."


def long_text(use: bytes, times: int) -> bytes:
    text = b"X" + struct.pack("<i", 100_000) + b"x" * 100_000 + b"q\x00"
    return b"\x80\x02c_codecs\nencode\nq\x01(" + text + use * times + b"l."


PICKLES = {
    "memo": memo_bomb(),
    "tuples": b"\x80\x02})" + b"\x85" * 400_000 + b"Ns.",
    "references": long_text(b"h\x00", 50_000),
    "copies": long_text(b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R", 20_000),
    "place": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "self": b"\x80\x02]q\x00h\x00a.",
    "axis": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\xff\xff\xff\xff\x85"
    b"cnumpy\ndtype\nU\x02u1\x85R\x89C\x04abcdtb.",
}


def saved(
    state: dict, method: int = zipfile.ZIP_STORED, twins: int = 0, text: bytes = b""
) -> bytes:
    """A file of torch.save packed again: compressed, with members twice, or another pickle."""
    source, out = io.BytesIO(), io.BytesIO()
    torch.save(state, source)
    with zipfile.ZipFile(source) as held, zipfile.ZipFile(out, "w", method) as made:
        for name in held.namelist():
            pickled = name.endswith("data.pkl") and text
            made.writestr(name, text if pickled else held.read(name))
        for k in range(twins):
            twin = copy.copy(max(made.filelist, key=lambda m: m.file_size))
            twin.filename += str(k)
            made.filelist.append(twin)
    return out.getvalue()


def saved_files(folder):
    files = {
        "deflated.pt": saved({"w": torch.zeros(5_000_000)}, zipfile.ZIP_DEFLATED),
        "twins.pt": saved({"w": torch.zeros(1000)}, twins=200),
        "copies.pt": saved({"w": torch.zeros(2)}, text=PICKLES["copies"]),
        "place.pt": saved({"w": torch.zeros(2)}, text=PICKLES["place"]),
        "tuples.pt": saved({"w": torch.zeros(2)}, text=PICKLES["tuples"]),
        "old.pt": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + PICKLES["copies"],
    }
    cases = written(folder, "pickle", {f"{k}.p": v for k, v in PICKLES.items()})
    return cases + written(folder, "pt", files)


def test_pickles_and_saved_files(lines):
    said = check(lines["saved_files"])
    assert "is compressed" in said["deflated.pt"]
    assert "members of" in said["twins.pt"]


def lying(size: int, content: bytes) -> bytes:
    """A deflated member that says it holds ``size`` bytes and unpacks to more."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x.npy", content)
    data = out.getvalue()
    return data.replace(struct.pack("<I", len(content)), struct.pack("<I", size))


def packed(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        made.writestr("x.npy", npy(30_000_000))
    return out.getvalue()


def npy(count: int) -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(count, np.int8))
    return out.getvalue()


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0;"
    return head + image


def data_sets(folder):
    cases = written(folder, "npz", {
        "bz2.npz": packed(zipfile.ZIP_BZIP2), "lzma.npz": packed(zipfile.ZIP_LZMA),
        "lying.npz": lying(len(npy(300)), npy(30_000_000)),
        "npy.npz": lying(100, npy(30_000_000)),
    })  # fmt: skip
    pictures = (png(60_000, 60_000), png(8000, 8000), gif(65_535, 65_535), gif(8000, 8000))
    for k, picture in enumerate(pictures):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as made:
            for n in range(3):
                made.writestr(f"a/{n}.{'gif' if picture[:3] == b'GIF' else 'png'}", picture)
        cases += written(folder, "zip", {f"{k}.zip": out.getvalue()})
    return cases


def test_data_sets(lines):
    check(lines["data_sets"])


def compressed_idx(folder):
    head = struct.pack(">HBBIII", 0, 8, 3, 3, 28, 28)
    whole = gzip.compress(head + np.random.default_rng(0).bytes(3 * 28 * 28))
    contents = {
        "zeros": gzip.compress(b"\0" * 300_000_000, 1),
        "corrupt": whole[:60] + b"\xff" * 40 + whole[100:],
        "short": whole[:-200],
        "no gzip": b"\x1f\x8b" + b"junk" * 10,
        "checksum": whole[:-8] + b"\0" * 8,
        "lie": gzip.compress(struct.pack(">HBBIII", 0, 8, 3, 2**31, 28, 28) + b"\0" * 99),
    }
    cases = []
    for kind, content in contents.items():
        name = f"{kind}/MNIST/raw/t10k-images-idx3-ubyte.gz"
        cases += written(folder, "idx-gz", {name: content})
        labels = struct.pack(">HBBI", 0, 8, 1, 3) + b"\0" * 3
        (folder / kind / "MNIST/raw/t10k-labels-idx1-ubyte").write_bytes(labels)
    return cases


def test_compressed_idx(lines):
    for text in check(lines["compressed_idx"]).values():
        assert "at most 268435456" in text


# --------------------------------------------------------------------------- programs


def graph(nodes, weights, output=(1,)):
    made = helper.make_graph(
        [*nodes, helper.make_node("Add", ["x", "big"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *output])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


def node(kind, inputs, **attributes):
    return helper.make_node(kind, inputs, ["big"], **attributes)


ONE = np.ones((1, 1, 1, 1), np.float32)
GRAPHS = {
    "fill": graph([node("ConstantOfShape", ["s"])], {"s": [2**31]}),
    "expand": graph([node("Expand", ["v", "s"])], {"v": ONE, "s": [1, 1, 2**15, 2**16]}),
    "tile": graph([node("Tile", ["v", "s"])], {"v": ONE, "s": [1, 1, 2**15, 2**16]}),
    "range": graph([node("Range", ["a", "b", "c"])],
                   {"a": np.float32(0), "b": np.float32(2e9), "c": np.float32(1)}),
    "pad": graph([node("Pad", ["v", "s"])], {"v": ONE, "s": [0, 0, 0, 0, 0, 0, 2**15, 2**16]}),
    "resize": graph([node("Resize", ["v", "", "", "s"], mode="nearest",
                          coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
                    {"v": ONE, "s": [1, 1, 2**15, 2**16]}),
    "many": graph(
        [*(helper.make_node("ConstantOfShape", ["s"], [f"c{k}"]) for k in range(200)),
         node("Sum", [f"c{k}" for k in range(200)])], {"s": [4_000_000]}),
    "list": graph([helper.make_node("ConstantOfShape", ["s"], ["t"],
                                    value=numpy_helper.from_array(np.array([1]), "v")),
                   node("ConstantOfShape", ["t"])], {"s": [5_000_000]}),
    "einsum": graph([helper.make_node("ConstantOfShape", ["s"], ["t"]),
                     node("Einsum", ["t", "t"], equation="a,b->ab")], {"s": [100_000]}),
    "concat": graph(
        [helper.make_node("ConstantOfShape", ["s"], ["c0"]),
         *(helper.make_node("Concat", [f"c{k}"] * 2, [f"c{k + 1}"], axis=0) for k in range(40)),
         node("Identity", ["c40"])], {"s": [8]}),
    "data": graph(
        [helper.make_node("Expand", ["x", "s"], ["e"]),
         node("ReduceSum", ["e"])], {"s": [1, 10**12]}),
}  # fmt: skip


SPLIT = graph([helper.make_node("Split", ["v"], ["big"], num_outputs=10**9, axis=0)], {"v": ONE})


def outside(tmp_path):
    """A thousand tensors that are one place of another file."""
    (tmp_path / "w.bin").write_bytes(b"\0" * 1_000_000)
    weights = []
    for k in range(1000):
        weight = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[250_000],
                             data_location=TensorProto.EXTERNAL)  # fmt: skip
        for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "1000000")):
            weight.external_data.add(key=key, value=value)
        weights.append(weight)
    made = helper.make_graph(
        [helper.make_node("Add", ["x", "w0"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 250_000])], weights,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


def graphs(folder):
    folder.mkdir()
    files = {f"{k}.onnx": v for k, v in GRAPHS.items()} | {"outside.onnx": outside(folder)}
    return written(folder, "onnx", files | {"split.onnx": SPLIT})


def test_onnx(lines):
    found = dict(lines["graphs"])
    assert found.pop("split.onnx")["outcome"] == "accepted"  # its outputs count, not its word
    said = check(found)
    assert len(GRAPHS["fill"]) < 200
    for name in ("fill", "expand", "tile", "range", "pad", "resize", "many", "einsum", "concat"):
        assert "constants of more than" in said[f"{name}.onnx"], (name, said[f"{name}.onnx"])


class Filled(torch.nn.Module):
    def forward(self, x):
        return x + torch.full((10**11,), 1.0)[:3]


def programs(folder):
    folder.mkdir()
    x, dynamic = torch.zeros(2, 3), ({0: torch.export.Dim("batch")},)
    path = folder / "n.pt2"
    torch.export.save(torch.export.export(torch.nn.ReLU(), (x,), dynamic_shapes=dynamic), path)
    files = {}
    powers = ("9**9**9**9", "Pow(Integer(9), Pow(Integer(9), Integer(9)))", "1<<99999999999",
              "LShift(Integer(1), Integer(9999999999))", "((((9**8)**8)**8)**8)**8",
              "Pow(Integer(9), Integer(99999999))", "+".join(["s0"] * 5000), "-" * 4000 + "1",
              "9" * 900)  # fmt: skip
    for k, power in enumerate(powers):
        out = io.BytesIO()
        with zipfile.ZipFile(path) as held, zipfile.ZipFile(out, "w") as made:
            changed = 0
            for name in held.namelist():
                data = held.read(name)
                if name.endswith(".json"):
                    whole = json.loads(data)
                    changed += replaced(whole, "expr_str", power)
                    data = json.dumps(whole).encode()
                made.writestr(name, data)
            assert changed
        files[f"{k}.pt2"] = out.getvalue()
    torch.export.save(torch.export.export(Filled(), (x,), dynamic_shapes=dynamic), path)
    files["full.pt2"] = path.read_bytes()
    return written(folder, "pt2", files)


def test_exported_programs(lines):
    said = check(lines["programs"])
    assert "makes more than memory holds" in said["full.pt2"]


def replaced(value, key, text):
    """Put a text in every place of a key; how often."""
    if isinstance(value, list):
        return sum(replaced(v, key, text) for v in value)
    if not isinstance(value, dict):
        return 0
    found = 0
    for k, held in value.items():
        if k == key:
            value[k], found = text, found + 1
        else:
            found += replaced(held, key, text)
    return found


# --------------------------------------------------------------------------- architectures


def asked(number):
    """Every registered architecture, with each argument that takes a number set to one."""
    for entry in registry.entries("arch"):
        known = hints.of(entry.build)
        for name in inspect.signature(entry.build).parameters:
            hint = str(known.get(name))
            if "int" in hint and "seed" not in name:
                yield f"{entry.name}({name}={number})"
            if "tuple" in hint:
                yield f"{entry.name}({name}=({number}, {number}))"
            if "float" in hint:
                yield f"{entry.name}({name}={float(number)})"


def words(folder, number=10**8):
    specs = [s for s in asked(number) if number > 4096 or not s.startswith("regnet")]
    assert len(specs) > 400
    cases = []
    for k, spec in enumerate(specs):
        text = json.dumps({"format": 1, "spec": spec})
        weights = {"model.0.weight": np.ones((4, 4), np.float32)}
        storage.write_tensors(folder / f"{k}.safetensors", weights, {"isogon": text})
        cases.append(["checkpoint", f"{k}.safetensors"])
    return cases


def test_every_argument_of_every_architecture(lines):
    assert len(check(lines["words"])) > 400


@pytest.mark.long
def test_every_argument_at_the_limit(tmp_path):
    found = watched.run(tmp_path, cases=words(tmp_path, 4000), seconds=30, memory=2**30)
    check({x["case"]: x for x in found})


GROUPS = (yaml, texts, saved_files, data_sets, compressed_idx, graphs, programs, words)
