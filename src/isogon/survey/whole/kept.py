"""What a survey leaves: a line per measure, and facts; kept as ``survey.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isogon import hints, registry, storage
from isogon.errors import FileError
from isogon.survey.running.record import Record, load_inside

FILE = "survey.json"
FORMAT = 1


@dataclass
class Line:
    """One measure of a survey: ``done``, ``reused``, ``skipped`` or ``failed``.

    ``side`` is ``a`` or ``b`` where a comparison takes the measure of each network.
    """

    measure: str
    status: str
    reason: str = ""
    command: str = ""
    record: str = ""
    seconds: float = 0.0
    detail: str = ""
    verdict: str = ""
    side: str = ""

    @property
    def key(self) -> str:
        """What tells the line from the others: measure, and side in a comparison."""
        return f"{self.measure}/{self.side}" if self.side else self.measure


@dataclass
class Survey:
    """What a survey did, or a comparison of two networks; its records are kept beside it.

    Attributes:
        model: Canonical spec of the model.
        batches: Canonical spec of the data.
        facts: What is told of the model and the data; see `isogon.survey.whole.subject`.
        lines: One per measure (of a comparison one per measure and side).
        budget: Seconds that the measures had.
        seconds: That they took.
        started: When, in ISO's format.
        command: That runs it again.
        versions: Of what computed.
        directory: Its folder.
        interrupted: Whether it was stopped by Ctrl-C.
        other: Canonical spec of the second network of a comparison; else empty.
        names: What the two networks of a comparison are called.
        other_facts: Of the second network.
        agreement: On the samples: ``total``, ``same`` predictions, ``only_a`` and ``only_b`` right.
    """

    model: str
    batches: str
    facts: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    budget: float = 0.0
    seconds: float = 0.0
    started: str = ""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None
    interrupted: bool = False
    other: str = ""
    names: dict[str, str] = field(default_factory=dict)
    other_facts: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, int] = field(default_factory=dict)

    def records(self) -> dict[str, Record]:
        """The whole records by measure (of a comparison by ``measure/side``)."""
        assert self.directory is not None
        found = {n.key: load_inside(self.directory, n.record) for n in self.lines if n.record}
        return {k: r for k, r in found.items() if r is not None}

    @property
    def page(self) -> Path | None:
        """The report, where it was written."""
        path = None if self.directory is None else self.directory / "report.html"
        return path if path is not None and path.is_file() else None

    def _repr_html_(self) -> str:
        return registry.get("embeds", "Survey").build(self)

    def save(self) -> None:
        """Write ``survey.json``."""
        assert self.directory is not None
        data = asdict(self) | {"format": FORMAT}
        data.pop("directory")
        storage.write_json(self.directory / FILE, data)


def read_survey(directory: Path) -> Survey:
    """The survey kept in a folder.

    Raises:
        FileError: There is none.
    """
    try:
        if not (directory / FILE).is_file():
            raise KeyError(FILE)
        data = storage.read_json(directory / FILE)
        if data.pop("format") != FORMAT:
            raise KeyError("format")
        lines = [hints.made(Line, line) for line in data.pop("lines")]
        return hints.made(Survey, data, lines=lines, directory=directory)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(
            "not a survey's folder",
            got=str(directory),
            expected=f"a folder with {FILE}",
            fix="Name the folder that `isogon survey` wrote.",
        ) from error
