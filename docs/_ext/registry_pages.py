"""Reference pages made from the registry: one per measure, data set, architecture, family, ...

Nothing is written twice: a page is an entry's signature and docstring, rendered as the reports
render them. Pages are written before Sphinx reads its sources; one that has not changed is
left alone, so that Sphinx does not read it again.
"""

from __future__ import annotations

import html
import inspect
import re
from pathlib import Path

import isogon
from isogon import registry
from isogon.survey.declaring.declare import arguments, declare, sections
from isogon.survey.pages import bibliography, prose

TITLES = {
    "measure": ("Measures", "What can be measured of a network; each is a function and a command."),
    "experiment": ("Experiments", "Steps put together: `isogon experiment NAME`."),
    "arch": ("Architectures", "What `cnn(width=32)` may name; fresh weights."),
    "model": ("Models", "Specs that give a trained model."),
    "dataset": ("Data sets", "What `mnist(test, 512)` may name."),
    "family": ("Transformation families", "Finite, labelled sets of transformations."),
    "group": ("Groups", "Groups that act on the channels of a layer."),
    "slice": ("Slices", "Pieces of a plane in input space."),
    "metric": ("Similarity metrics", "What `similarity(metric=...)` may name."),
    "stitch": ("Stitches", "What `stitch(by=...)` may name."),
    "concepts": ("Concepts", "Labelled images: what `dissect(model, ...)` may name."),
    "noun": ("Nouns", "What a measure's parameters may be typed by; each parses a spec."),
    "lowers": ("Lowered operations", "Operations that the partition knows how to lower."),
    "reading": ("Readings", "Kinds of results."),
}


def setup(app):
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: generate(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def generate(folder: Path) -> None:
    """Write the pages and remove those of entries that are gone."""
    pages = dict(write_kinds())
    pages["python.md"] = python_page()
    pages["references.md"] = references_page()
    pages["index.md"] = index_page()
    folder.mkdir(exist_ok=True)
    for old in folder.rglob("*.md"):
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def write_kinds():
    """Name and text of every page of every kind."""
    for kind, (title, summary) in TITLES.items():
        found = own(kind)
        shared = shared_pages(found)
        rows = []
        for name, entry in found.items():
            target = shared.get(name, name)
            rows.append(
                f"<tr><td><a href='{kind}/{slug(target)}.html'><code>{esc(name)}</code></a></td>"
                f"<td>{prose.inline(entry.summary)}</td></tr>"
            )
        table = f"<table class='entries'>{''.join(rows)}</table>" if rows else "<p>None yet.</p>"
        pages = sorted({shared.get(name, name) for name in found})
        tree = "\n".join(f"{kind}/{slug(name)}" for name in pages)
        body = f"# {title}\n\n{summary}\n\n{raw(table)}\n"
        if tree:
            body += f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{tree}\n```\n"
        yield f"{kind}.md", body
        for name in pages:
            names = [n for n in found if shared.get(n, n) == name]
            yield f"{kind}/{slug(name)}.md", entry_page(kind, found[name], names)


def own(kind: str) -> dict[str, registry.Entry]:
    """Entries that isogon itself registers (an installed extension has its own pages)."""
    found = {entry.name: entry for entry in registry.entries(kind)}
    return {k: e for k, e in found.items() if (e.build.__module__ or "").startswith("isogon")}


def shared_pages(found: dict[str, registry.Entry]) -> dict[str, str]:
    """Names that share one docstring (torchvision's classifiers) share one page."""
    first: dict[str, str] = {}
    shared = {}
    for name, entry in found.items():
        text = inspect.getdoc(entry.build) or ""
        plain = re.sub(rf"\b{re.escape(name)}\b", "NAME", text)
        shared[name] = first.setdefault(plain or name, name)
    return shared


def entry_page(kind: str, entry: registry.Entry, names: list[str]) -> str:
    """One entry: signature, definition, parameters, errors, sources, command."""
    doc = inspect.getdoc(entry.build) or ""
    title = entry.name if len(names) == 1 else f"{entry.name} and {len(names) - 1} more"
    parts = [f"<div class='prose'><p><b>{prose.inline(entry.summary)}</b></p>"]
    parts.append(f"<div class='entry-signature'>{esc(shown(entry))}</div>")
    if len(names) > 1:
        listed = " ".join(f"<code>{esc(n)}</code>" for n in names)
        parts.append(f"<p>All of: {listed}</p>")
    parts.append(body(doc))
    parts.append(sources(entry))
    if kind == "measure":
        parts.append(command(entry))
    parts.append("</div>")
    return f"# {title}\n\n{raw(''.join(parts))}\n"


def body(doc: str) -> str:
    """A docstring behind its first line: definition, parameters, results, errors."""
    found = sections(doc)
    parts = [prose.definition(doc)]
    named = arguments(doc)
    if named:
        rows = [f"<dt>{esc(k)}</dt><dd>{prose.inline(v)}</dd>" for k, v in named.items()]
        parts.append(f"<h3>Parameters</h3><dl>{''.join(rows)}</dl>")
    for head, text in found.items():
        if head and head not in ("Args", "Arguments") and text.strip():
            example = head.startswith("Example") or ">>>" in text
            named = arguments(f"Args:\n{indented(text)}") if head == "Raises" else {}
            if named:
                rows = [f"<dt>{esc(k)}</dt><dd>{prose.inline(v)}</dd>" for k, v in named.items()]
                inner = f"<dl>{''.join(rows)}</dl>"
            else:
                inner = f"<pre>{esc(text)}</pre>" if example else prose.blocks(text)
            parts.append(f"<h3>{esc(head)}</h3>{inner}")
    return "".join(parts)


def sources(entry: registry.Entry) -> str:
    """The works that define an entry."""
    keys = entry.extra.get("cite", ())
    if not keys:
        return ""
    keys = [keys] if isinstance(keys, str) else keys
    items = "".join(f"<li>{esc(bibliography.line(key))}</li>" for key in keys)
    return f"<h3>Sources</h3><ul>{items}</ul>"


def command(entry: registry.Entry) -> str:
    """How a measure is called on the command line."""
    made = declare(entry)
    inputs = " ".join(f"--{i.name.replace('_', '-')} {i.noun.upper()}" for i in made.inputs
                      if i.required)  # fmt: skip
    options = " ".join(f"[--{o.name.replace('_', '-')}]" for o in made.options)
    line = f"isogon {made.command} {inputs} {options}".strip()
    return f"<h3>Command</h3><div class='entry-signature'>{esc(line)}</div>"


def python_page() -> str:
    """The public functions of ``isogon``."""
    parts = []
    for name in sorted(isogon._API):
        try:
            found = getattr(isogon, name)
        except (ImportError, AttributeError):  # listed before its module exists
            continue
        doc = inspect.getdoc(found) or ""
        first = doc.split("\n")[0]
        try:
            text = f"isogon.{name}{signature(found)}"
        except (TypeError, ValueError):
            text = f"isogon.{name}"
        html_body = (
            f"<div class='prose'><p>{prose.inline(first)}</p>"
            f"<div class='entry-signature'>{esc(text)}</div>{body(doc)}</div>"
        )
        parts.append(f"## {name}\n\n{raw(html_body)}")
    return (
        "# Python interface\n\n`import isogon as ig`; every name is imported on first use.\n\n"
        + ("\n\n".join(parts) + "\n")
    )


def references_page() -> str:
    """All works."""
    works = sorted(bibliography.works().values(), key=lambda w: (w.authors, w.key))
    rows = "".join(f"<li id='{esc(w.key)}'>{esc(bibliography.line(w.key))}</li>" for w in works)
    return f"# References\n\n{raw(f'<ul>{rows}</ul>')}\n"


def index_page() -> str:
    """The list of kinds."""
    tree = "\n".join(["python", *TITLES, "references"])
    text = (
        "# Reference\n\nMade from the registry: signatures and definitions are those of the code.\n"
        "Another package can add to every kind, see [how to extend](../howto/index.md).\n"
    )
    return f"{text}\n```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n"


def shown(entry: registry.Entry) -> str:
    """The call, as Python would write it."""
    try:
        return f"{entry.name}{signature(entry.build)}"
    except (TypeError, ValueError):
        return entry.name


def signature(found) -> str:
    """A signature with plain annotations."""
    return str(inspect.signature(found)).replace("'", "").replace("isogon.", "")


def raw(text: str) -> str:
    """HTML that Sphinx passes through (and indexes for its search)."""
    fence = "`" * 8
    return f"{fence}{{raw}} html\n{text}\n{fence}"


def indented(text: str) -> str:
    """Every line four columns to the right."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def slug(name: str) -> str:
    """A file's name."""
    return re.sub(r"[^\w.-]", "_", name)


def esc(text: object) -> str:
    """Escaped HTML."""
    return html.escape(str(text))
