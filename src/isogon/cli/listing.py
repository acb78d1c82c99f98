"""`isogon list` and `isogon families`: what has a name, in groups."""

from __future__ import annotations

from isogon.survey.declaring import catalogue

OFFLINE = ("seed", "batch_size", "device", "again")  # of no use to commands that compute nothing
KINDS = {
    "what can be measured": ("measure", "experiment"),
    "what it is measured on": ("arch", "model", "dataset", "concepts"),
    "what a measure is given besides": ("family", "slice", "group", "metric", "stitch"),
    "for those who add to isogon": ("noun",),
}
# Room of a measure (its package or module in `isogon.measures`) -> its heading.
TOPICS = {
    "partition": "linear regions and decision boundary",
    "boundary": "linear regions and decision boundary",
    "segments": "linear regions and decision boundary",
    "local_complexity": "linear regions and decision boundary",
    "evolution": "linear regions and decision boundary",
    "manifold": "data manifold",
    "orbits": "invariance and equivariance",
    "arrangement": "layers and hyperplanes",
    "alignment": "two networks",
    "stitching": "stitching and symmetries",
    "dissection": "concepts",
}
OTHERS = "of other packages"
TORCHVISION = "torchvision's classifiers"


def plural(kind: str) -> str:
    """The kind as `isogon list` calls it."""
    plurals = {"family": "families", "stitch": "stitches", "concepts": "concepts"}
    return plurals.get(kind, f"{kind}s")


def typed(kind: str, name: str) -> str:
    """A name as it is typed: commands have hyphens, names in specs underscores."""
    return name.replace("_", "-") if kind in catalogue.DECLARED else name


def grouped(kind: str) -> dict[str, list[tuple[str, str]]]:
    """Heading -> names, as they are typed, with their summaries; one heading "" where none."""
    found: dict[str, list[tuple[str, str]]] = {}
    if kind == "measure":
        found = {heading: [] for heading in TOPICS.values()}
    for name, (call, summary) in catalogue.summaries(kind).items():
        shown = typed(kind, name) if kind in catalogue.DECLARED else call
        found.setdefault(_heading(kind, name), []).append((shown, summary))
    if kind == "arch" and (theirs := found.pop(TORCHVISION, None)):
        calls = [call.split("(")[0] for call, _ in theirs]
        found[TORCHVISION] = [("NAME(num_classes=10, ...)", ", ".join(calls))]
    return {heading: rows for heading, rows in found.items() if rows}


def _heading(kind: str, name: str) -> str:
    module = catalogue.module(kind, name)
    if kind == "measure":
        room = module.removeprefix("isogon.measures.").split(".")[0]
        return TOPICS.get(room, OTHERS) if module.startswith("isogon.") else OTHERS
    if kind == "arch":
        if module == "isogon.nets.arch.torchvision_models":
            return TORCHVISION
        return "isogon's own" if module.startswith("isogon.") else OTHERS
    return ""


def list_command(words: list[str]) -> int:
    """`isogon list [KIND]`."""
    from isogon.cli import console
    from isogon.cli.parser import Parser

    parser = Parser(
        "list",
        "What has a name in isogon: kinds, or the names of one kind as they are typed.",
        "examples:\n  isogon list\n  isogon list measures\n  isogon list archs",
    )
    parser.positional("kind", "measures, archs, datasets, families, ...", optional=True)
    parser.commons(out=None, skip=OFFLINE)
    options = parser.parse(words)
    if options.kind is None:
        for heading, kinds in KINDS.items():
            rows = [(plural(k), _some(k)) for k in kinds]
            console.listing(rows, heading)
            console.say("")
        console.say("isogon list KIND shows one kind; isogon show NAME explains a name")
        return 0
    kind = catalogue.kind(options.kind)
    for i, (heading, rows) in enumerate(grouped(kind).items()):
        if i:
            console.say("")
        console.listing(rows, heading)
    return 0


def _some(kind: str) -> str:
    """How many names a kind has, and the first few."""
    found = [typed(kind, n) for n in catalogue.names(kind)]
    return f"{len(found):>4}  {', '.join(found[:4])}{', ...' if len(found) > 4 else ''}"


def families(words: list[str]) -> int:
    """`isogon families [SPEC]`: what there is, or the members of one with their matrices."""
    from isogon.cli import console
    from isogon.cli.parser import Parser

    parser = Parser(
        "families",
        "Families of transformations: all that there are, with their arguments; or the members\n"
        "of one, with parameters and, for affine maps, the two rows of the matrix that moves a\n"
        "point (x right, y down, in pixels from the centre) of the image.",
        'examples:\n  isogon families\n  isogon families "rotations(8)"\n'
        '  isogon families "product(rotations(4), scales(3, 0.7, 1.3))"\n'
        "  isogon show rotations",
    )
    parser.positional("spec", 'a family, e.g. "rotations(16)"', optional=True)
    parser.commons(out=None, skip=OFFLINE)
    options = parser.parse(words)
    if options.spec is None:
        console.listing(list(catalogue.summaries("family").values()))
        console.say("")
        console.say(
            "isogon show NAME explains the arguments; functions of your own: docs/howto/family"
        )
        return 0
    from isogon.actions import family

    found = family(options.spec)
    rows = []
    for row in found.to_frame().to_dict("records"):
        known = {str(k): v for k, v in row.items() if k != "label" and v == v}
        facts = [f"{k}={v:g}" for k, v in known.items() if not k.startswith("matrix_")]
        if "matrix_a" in known:
            a, b, c, d, e, f = (f"{known[f'matrix_{n}'] + 0.0:.4g}" for n in "abcdef")
            facts.append(f"[{a} {b} {c}; {d} {e} {f}]")
        rows.append((str(row["label"]), "  ".join(facts)))
    console.listing(rows, f"{found.name}: {console.counted(len(found), 'member')}")
    return 0
