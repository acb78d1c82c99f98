"""Jobs: what to compute, in strings."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from isogon.errors import FileError


@dataclass(frozen=True)
class Job:
    """One measurement in words: nothing in it is an object.

    Attributes:
        measure: Registered name.
        inputs: Parameter -> spec string.
        options: Parameter -> plain value.
        seed: Seeds the generator of measures that draw random numbers.
        shard: ``(k, n)``: of this measurement only what batches k, k + n, ... of its data give.
    """

    measure: str
    inputs: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    shard: tuple[int, int] | None = None

    def command(self, *, globals_: Mapping[str, Any] | None = None) -> str:
        """The command line that runs this job."""
        words = ["isogon", self.measure.replace("_", "-")]
        for name, spec in self.inputs.items():
            words += [f"--{name.replace('_', '-')}", spec]
        for name, value in self.options.items():
            flag = name.replace("_", "-")
            switch = isinstance(value, bool)
            words += (
                [f"--{'' if value else 'no-'}{flag}"] if switch else [f"--{flag}", spelled(value)]
            )
        if self.seed:
            words += ["--seed", str(self.seed)]
        for name, value in (globals_ or {}).items():
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        text = " ".join(map(quoted, words))
        if self.shard is None:
            return text
        k, n = self.shard
        return f"{text}  # share {k + 1} of {n}"

    def shares(self, count: int) -> list[Job]:
        """The jobs that this one is shared out over."""
        return [replace(self, shard=(k, count)) for k in range(count)]

    def whole(self) -> Job:
        """The job that this one is a share of."""
        return replace(self, shard=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data (tuples become lists)."""
        data = asdict(self)
        if self.shard is None:
            data.pop("shard")
        return json.loads(json.dumps(data, sort_keys=True))

    def digest(self) -> str:
        """Digest of all of it."""
        return key_of(self.to_json())

    @classmethod
    def from_json(cls, data: Any) -> Job:
        """From plain data.

        Raises:
            FileError: The data is not a job.
        """
        try:
            options = {str(k): _tupled(v) for k, v in data["options"].items()}
            inputs = {str(k): str(v) for k, v in data["inputs"].items()}
            shard = data.get("shard")
            if shard is not None:
                k, n = map(int, shard)
                shard = k, n
            return cls(str(data["measure"]), inputs, options, int(data["seed"]), shard)
        except (KeyError, TypeError, AttributeError, ValueError):
            raise FileError(
                "not a job", got=json.dumps(data)[:80], expected="measure, inputs, options, seed"
            ) from None


def key_of(parts: Mapping[str, Any]) -> str:
    """Digest of plain data."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def quoted(word: str) -> str:
    """A word for the shell; in double quotes where it holds single ones and nothing special."""
    if "'" in word and not any(c in word for c in '"$`!\\\n'):
        return f'"{word}"'
    return shlex.quote(word)


def spelled(value: Any) -> str:
    """An option's value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return "[" + ",".join(spelled(v) for v in value) + "]"
    return str(value)


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
