"""What is read from the sources is what importing them registers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isogon import hints, registry, variants
from isogon.survey.declaring import catalogue, sources
from isogon.survey.declaring.declare import declare

LIVE = {
    kind: {
        name: entry
        for name in registry.names(kind)
        if (entry := registry.known(kind).get(name)) is not None
        and entry.build.__module__.split(".")[0] == "isogon"
    }
    for kind in catalogue.LISTED
}


@pytest.mark.parametrize("kind", catalogue.LISTED)
def test_the_catalogue_is_the_registry(kind):
    read = sources.source_entries(kind)
    assert list(read) == sorted(LIVE[kind])
    nouns = registry.names("noun")
    for name, live in LIVE[kind].items():
        assert registry.signature(read[name]) == registry.signature(live)
        assert read[name].summary == live.summary
        assert read[name].build.__module__ == live.build.__module__
        assert declare(read[name], nouns) == declare(live, nouns), name
        assert declare(live, catalogue.names("noun")) == declare(live, nouns)
        assert plain(read[name].extra) == plain(live.extra)
        assert catalogue.entry(kind, name) is live


def plain(extra: dict) -> dict:
    """Classes by their names: reading a module's text does not make them."""
    return {k: v.__name__ if isinstance(v, type) else v for k, v in extra.items()}


def registered(monkeypatch, tmp_path, files: dict[str, str]) -> dict[str, registry.Entry]:
    """The architectures that a package of these files registers, as read."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for cached in (
        sources._texts,
        sources._registering,
        sources.source_entries,
        sources._Module.at,
    ):
        cached.cache_clear()
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    try:
        return sources.source_entries("arch")
    finally:
        monkeypatch.undo()
        for cached in (
            sources._texts,
            sources._registering,
            sources.source_entries,
            sources._Module.at,
        ):
            cached.cache_clear()


def test_names_that_the_text_binds_are_followed(monkeypatch, tmp_path):
    found = registered(
        monkeypatch,
        tmp_path,
        {
            "kinds.py": "from typing import Literal\nKind = Literal['a', 'b']\nSIZE = 2**3\n",
            "nets/made.py": (
                "from __future__ import annotations\n"
                "from typing import TYPE_CHECKING\n"
                "import torch\n"
                "from isogon import registry as registry\n"
                "from isogon.registry import arch\n"
                "from isogon.kinds import SIZE, Kind\n"
                "if TYPE_CHECKING:\n    from elsewhere import Hidden\n"
                "class Config:\n    depth: int = SIZE + 1\n"
                "@arch('one', cite='x')\n"
                "def build(first, /, kind: Kind = 'a', *rest: int, size: int = SIZE,\n"
                "          depth=Config.depth, hidden: Hidden = 3, act=torch.nn.ReLU(), **more):\n"
                "    '''One of them.\n\n    Args:\n        size: Its size.\n    '''\n"
                "def two(width: float = -1.5): 'Two.'\n"
                "registry.register('arch', 'second')(two)\n"
                "def arch_like(arch): return arch\n"
                "@arch_like\ndef three(): pass\n"
            ),
            "nets/other.py": "def arch(): pass\n# isogon.registry\n@arch()\ndef no(): pass\n",
        },
    )
    assert list(found) == ["one", "second"]
    options = {o.name: (o.type, o.default, o.help) for o in declare(found["one"], ()).options}
    assert options == {
        "kind": (["literal", "a", "b"], "a", ""),
        "size": ("int", 8, "Its size."),
        "depth": ("int", 9, ""),
        "hidden": ("int", 3, ""),
        "first": ("none", None, ""),
    }
    assert found["one"].extra == {"cite": "x"}
    assert registry.signature(found["second"]) == "second(width=-1.5)"
    assert found["second"].build.__module__ == "isogon.nets.made"


def test_a_row_of_a_table_is_a_builder_of_its_own():
    def template(depth: int, name: str, /, width: int = 3, *, classes: int = 10) -> tuple:
        """Depth {depth} for {classes} classes, as {name}."""
        return depth, name, width, classes

    build = variants.variant(template, "deep", {"depth": 7, "classes": 100})
    entry = registry.Entry("arch", "deep", build)
    assert registry.signature(entry) == "deep(width=3, classes=100)"
    assert entry.summary == "Depth 7 for 100 classes, as deep."
    assert build() == (7, "deep", 3, 100)
    assert build(5, classes=2) == (7, "deep", 5, 2)
    with pytest.raises(TypeError):
        build(depth=2)
    assert hints.of(build) == {"width": int, "classes": int, "return": tuple}


@pytest.mark.parametrize("words", [["--help"], ["list", "archs"], ["data-matrix", "--help"]])
def test_help_needs_no_torch_and_no_cache_and_reads_few_files(monkeypatch, words):
    """How long that takes says `benchmarks/startup.py`; here, what it does."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    code = (
        "import ast, sys; from isogon.cli import main; read = []; parse = ast.parse; "
        "ast.parse = lambda text, *a, **k: (read.append(text), parse(text, *a, **k))[1]; "
        "code = main(sys.argv[1:]); assert 'torch' not in sys.modules; "
        "assert 'numpy' not in sys.modules; assert 0 < len(read) <= 60, len(read); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)


def test_without_sources_the_registry_answers(monkeypatch):
    monkeypatch.setattr(sources, "_texts", dict)
    monkeypatch.setattr(sources, "_registering", dict)
    sources.source_entries.cache_clear()
    try:
        assert "cnn" in catalogue.names("arch")
        assert catalogue.declaration("data-matrix").input("model") is not None
        assert "cnn" in catalogue.summaries("arch")
    finally:
        sources.source_entries.cache_clear()
