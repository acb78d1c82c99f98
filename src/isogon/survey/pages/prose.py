"""Docstrings as HTML: paragraphs, lists, code and the plain-text formulas they hold.

Everything is escaped first; what is added afterwards are tags of this module only.
"""

from __future__ import annotations

import html
import re

from isogon.survey.declaring.declare import sections

GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "eps": "ε",
    "epsilon": "ε",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "sigma": "σ",
    "phi": "φ",
    "pi": "π",
    "tau": "τ",
}
NAMES = "|".join(GREEK)
SIGNS = (
    ("&lt;=", "≤"),
    ("&gt;=", "≥"),
    ("-&gt;", "→"),
    ("&lt;-", "←"),
    ("\\|", "|"),
    (" != ", " ≠ "),
    ("...", "…"),
)
WORDS = "grad|sum|mean|max|min|log|exp|sd|th|tr|var|argmax"
BASE = rf"(?:(?<![A-Za-z0-9_])(?:[A-Za-z]|{NAMES}|{WORDS})|[\])|>])"
SCRIPT = r"(?:\{([^{}]*)\}|(-?\d+\.\d+|-?[A-Za-z0-9]+|\+))"


def definition(doc: str) -> str:
    """The body of a docstring behind its first line, as HTML."""
    body = sections(doc).get("", "")
    _, _, rest = body.partition("\n")
    return blocks(rest)


def blocks(text: str) -> str:
    """Paragraphs, bullet lists and indented displays."""
    found = []
    for chunk in re.split(r"\n\s*\n", text.strip("\n")):
        lines = chunk.splitlines()
        if not chunk.strip():
            continue
        lists = [i for i, line in enumerate(lines) if re.match(r"\s*[-*] ", line)]
        if all(line.startswith("    ") for line in lines if line.strip()) and not lists:
            rows = [formulas(html.escape(line[4:].rstrip())) for line in lines]
            found.append(f'<div class="display">{"<br>".join(rows)}</div>')
        elif lists:
            if lists[0] > 0:
                found.append(f"<p>{inline(' '.join(lines[: lists[0]]))}</p>")
            found.append(f"<ul>{_items(lines[lists[0] :])}</ul>")
        else:
            found.append(f"<p>{inline(' '.join(line.strip() for line in lines))}</p>")
    return "\n".join(found)


def inline(text: str) -> str:
    """One run of text: code in back quotes, formulas outside of it."""
    parts = re.split(r"(``[^`]+``|:math:`[^`]+`|`[^`]+`)", " ".join(text.split()))
    done = []
    for part in parts:
        if part.startswith("``"):
            done.append(f"<code>{html.escape(part[2:-2])}</code>")
        elif part.startswith(":math:"):
            done.append(f'<span class="math">{formulas(html.escape(part[7:-1]))}</span>')
        elif part.startswith("`"):
            done.append(f"<code>{html.escape(part[1:-1])}</code>")
        else:
            done.append(formulas(html.escape(part, quote=False)))
    return "".join(done).replace("::", ":")


def formulas(text: str) -> str:
    """Subscripts, superscripts, Greek letters and signs in text that is escaped already."""
    for sign, better in SIGNS:
        text = text.replace(sign, better)
    for _ in range(2):  # x_i^T: the second script follows a tag
        text = re.sub(rf"({BASE}|</su[bp]>)_{SCRIPT}", _script("sub"), text)
        text = re.sub(rf"({BASE}|</su[bp]>|[A-Za-z])\^{SCRIPT}", _script("sup"), text)
    text = re.sub(r"(?<= )-(?= )", "−", text)
    text = re.sub(r"(?<![\w*])\*([A-Za-z][^*]*)\*(?![\w*])", r"<em>\1</em>", text)
    text = re.sub(r"\bsum(?=<sub>|\()", "Σ", text)
    text = re.sub(r"\bsum\b(?= [a-z]<su)", "Σ", text)
    text = re.sub(r"\bgrad(?=<sub>)", "∇", text)
    text = re.sub(r"\bsqrt\(", "√(", text)
    text = re.sub(r"\bsqrt (?=\w)", "√", text)
    text = re.sub(rf"\b({NAMES})(?=<su|\b)", _greek, text)
    return text


def _script(tag: str):
    def replace(match: re.Match) -> str:
        return f"{match[1]}<{tag}>{match[2] if match[2] is not None else match[3]}</{tag}>"

    return replace


def _greek(match: re.Match) -> str:
    return GREEK[match[1]]


def _items(lines: list[str]) -> str:
    items: list[list[str]] = []
    for line in lines:
        if match := re.match(r"\s*[-*] (.*)", line):
            items.append([match[1]])
        else:
            items[-1].append(line.strip())
    return "".join(f"<li>{inline(' '.join(item))}</li>" for item in items)
