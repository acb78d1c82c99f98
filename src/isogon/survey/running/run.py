"""Run a job: the only place where specs become objects."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import marshal
import os
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isogon import __version__, context, nesting, registry, storage
from isogon.errors import DataError, FileError, OptionError
from isogon.measures.manifold.crossings import complemented, complements
from isogon.nets.hygiene import precision
from isogon.nets.meeting import Meeting
from isogon.specs import Spec, parse
from isogon.storage import digests, modules, references
from isogon.storage.stamps import Stamp, note_again, noting, untouched
from isogon.survey.declaring import catalogue
from isogon.survey.declaring.check import check_job
from isogon.survey.declaring.declare import Declaration
from isogon.survey.declaring.job import Job, key_of
from isogon.survey.running import sharing
from isogon.survey.running.certifying import certify_within
from isogon.survey.running.placing import place
from isogon.survey.running.record import Record, load

if TYPE_CHECKING:
    from isogon.data.batches import Batches
    from isogon.readings.reading import Reading


KEEP = 8  # objects of one session that stay in memory


@dataclass(frozen=True)
class Held:
    """An object that a session keeps, the digest of its content, the files that it came from."""

    found: Any
    print: str
    files: Mapping[str, Stamp]


class Session:
    """Builds what specs name, once each, and places it on the device.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: the best that is there.
        batch_size: Samples per batch; the data's own default where it is None.
    """

    def __init__(self, *, device: str = "cpu", batch_size: int | None = None) -> None:
        self.device = resolve_device(device)
        self.batch_size = batch_size
        self._held: OrderedDict[tuple, Held] = OrderedDict()

    def get(self, noun: str, spec: str, *, like: Batches | None = None, seed: int = 0) -> Any:
        """The object of a noun that a spec names.

        Args:
            noun: Registered name of the noun.
            spec: What to build.
            like: Data whose shape and classes complete an architecture's arguments.
            seed: Of fresh weights; the global random state is as before afterwards.
        """
        return self._get(noun, spec, like, seed).found

    def fingerprint(
        self, noun: str, spec: str, *, like: Batches | None = None, seed: int = 0
    ) -> str:
        """Digest of what the spec stands for now: weights, data, files."""
        return self._get(noun, spec, like, seed).print

    def forget(self) -> None:
        """Drop all objects, e.g. after a measure was stopped in its middle."""
        self._held.clear()

    def _get(self, noun: str, spec: str, like: Batches | None, seed: int) -> Held:
        """What a spec stands for now; built anew where a file that it was read from has changed."""
        here = (os.getcwd(), str(context.data_root()))  # what paths are relative to
        key = (noun, spec, None if like is None else content(like), seed, *here)
        held = self._held.get(key)
        if held is None or not untouched(held.files):
            builder = catalogue.entry("noun", noun).build
            wanted = inspect.signature(builder).parameters
            given = {"like": like, "batch_size": self.batch_size}
            extra = {k: v for k, v in given.items() if k in wanted and v is not None}
            with noting() as files, torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = place(builder(spec, **extra), self.device)
                print = fingerprint(found, spec)
            self._held[key] = Held(found, print, dict(files))
            while len(self._held) > KEEP:
                self._held.popitem(last=False)
        else:
            note_again(held.files)
        self._held.move_to_end(key)
        return self._held[key]

    def inputs(self, job: Job, declaration: Declaration) -> tuple[dict[str, Any], dict[str, str]]:
        """The objects of a job's inputs and their digests; data first, models like the data."""
        nouns = {i.name: i.noun for i in declaration.inputs}
        order = sorted(job.inputs, key=lambda name: nouns[name] != "Batches")
        data = next((d for n in order for d in _data_sets(nouns[n], parse(job.inputs[n]))), None)
        like = None if data is None else self.get("Batches", str(data), seed=job.seed)
        objects: dict[str, Any] = {}
        prints: dict[str, str] = {}
        for name in order:
            held = self._get(nouns[name], job.inputs[name], like, job.seed)
            objects[name], prints[name] = held.found, held.print
        return objects, prints


def run(
    job: Job,
    *,
    out: str | Path | None = None,
    session: Session | None = None,
    again: bool = False,
    until: float | None = None,
    shards: int = 1,
    meeting: Meeting | None = None,
) -> Record:
    """Compute the reading that a job asks for, or find it where it was computed before.

    A job with a ``shard`` is run for its next pass over that share alone; see
    `isogon.survey.running.sharing`.

    Args:
        job: Measure, specs and options.
        out: Folder of records; nothing is kept where it is None.
        session: Objects shared with other jobs; a new one on the CPU where it is None.
        again: Compute even what is there already.
        until: End of a budget by `time.monotonic`, of which a certificate takes its part.
        meeting: Where the measure's first pass was run with others'.
        shards: Merge so many shares, whose records are in ``out``, instead of measuring.

    Returns:
        The record; ``reused`` says that it was found. A half-written or altered record counts
        as none and is replaced.

    Raises:
        IsogonError: The job is wrong, or can't be done; nothing was changed.
    """
    session = session or Session()
    job, key, directory, objects, prints = _addressed(job, out, session)
    found = load(directory, key) if directory is not None and not again else None
    if found is not None and job.shard is None:
        return found
    if directory is not None:
        writable(directory.parent)
    shares = _shares(job, shards, out, session)
    started, clock = datetime.now(UTC), time.perf_counter()
    if job.shard is not None:
        reading: Reading = sharing.run_share(job, shares, lambda: call_measure(job, objects))
        if found is not None and len(reading) == len(found.reading):
            return found  # there is no further pass, or the others are not so far
    elif shares:
        reading = sharing.merge_records(job, shares, lambda: call_measure(job, objects))
    else:
        with meeting.met(job.measure) if meeting is not None else nullcontext():
            reading = call_measure(job, objects)
    if job.shard is None:
        reading = complemented(reading, objects.get("model"))
    if dtype := _precision(objects):  # a measure that computes in another one says so itself
        reading.meta.setdefault("dtype", dtype)
    seconds = time.perf_counter() - clock
    if found is not None:  # the passes before
        seconds += found.provenance["seconds"]
    together: dict[str, Any] = {}
    if meeting is not None:
        seconds += meeting.seconds(job.measure)
        together = meeting.facts(job.measure)
    taken = sharing.seconds(shares) if job.shard is None else []
    certify_within(reading, seconds, until)
    provenance = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds + sum(taken),
        **({"shares": taken, "merged_in": seconds} if taken else {}),
        **({"shared_pass": together} if together else {}),
        "device": str(session.device),
        "threads": torch.get_num_threads(),
        "seed": job.seed,
        "dtype": dtype,
        "fingerprints": prints,
        "versions": versions(),
    }
    record = Record(job, reading, provenance, key)
    return record if directory is None else record.save(directory)


def call_measure(job: Job, objects: dict[str, Any]) -> Reading:
    """Call the measure of a checked job on objects; a seeded generator is supplied."""
    measure = catalogue.entry("measure", job.measure).build
    generator = torch.Generator().manual_seed(job.seed)
    wanted = inspect.signature(measure).parameters
    extra = {"generator": generator} if "generator" in wanted else {}
    positional, keywords = _bind(measure, {**objects, **job.options, **extra})
    return measure(*positional, **keywords)


def call(
    declaration: Declaration,
    specs: dict[str, str],
    options: dict[str, Any],
    session: Session,
    *,
    seed: int = 0,
    out: Path | None = None,
) -> Any:
    """Call an experiment: specs become objects, ``out``, ``seed`` and a generator are passed on.

    Raises:
        OptionError: A required input is missing.
    """
    build = catalogue.entry("experiment", declaration.name).build
    job, _ = check_job(Job(declaration.name, specs, options, seed), declaration)
    objects, _ = session.inputs(job, declaration)
    extra = {"out": str(out), "seed": seed, "generator": torch.Generator().manual_seed(seed)}
    wanted = inspect.signature(build).parameters
    extra = {k: v for k, v in extra.items() if k in wanted}
    positional, keywords = _bind(build, {**objects, **job.options, **extra})
    return build(*positional, **keywords)


def find_record(job: Job, *, out: str | Path, session: Session) -> Record | None:
    """The record of a job where it was computed before; nothing is measured."""
    _, key, directory, _, _ = _addressed(job, out, session)
    return None if directory is None else load(directory, key)


def resolve_device(text: str) -> torch.device:
    """The device of that name, if it is there.

    Raises:
        OptionError: It is not.
    """
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if text == "auto":
        return torch.device(available[1] if len(available) > 1 else "cpu")
    if text not in available:
        raise OptionError(
            "no such device here",
            got=repr(text),
            expected=f"one of: {', '.join(available)}, auto",
            fix="Use --device cpu, or a machine that has it.",
        )
    return torch.device(text)


def fingerprint(found: Any, spec: str) -> str:
    """Digest of an input: its content, and the code and files that its spec refers to.

    Raises:
        DataError: Data without samples.
    """
    if getattr(found, "count", 1) == 0:
        raise DataError(
            "empty data set", got=spec, expected="at least one sample", fix="Check the spec."
        )
    return digests.of(content(found), references.digest(parse(spec)))[:24]


def content(found: Any) -> str:
    """Digest of all that an object holds; batches that can't say theirs are read once."""
    if hasattr(found, "first") and hasattr(found, "samples"):
        return found.digest() if hasattr(found, "digest") else digests.batches(found)
    return digests.of(found)


def code_of(declaration: Declaration) -> str:
    """Digest of the source of a measure, see `isogon.storage.modules.code_digest`."""
    homes = [declaration.module]
    homes += [catalogue.declaration(name).module for name in complements(declaration.name)]
    if not modules.files(declaration.module):  # typed into a session: no file holds it
        build = inspect.unwrap(catalogue.entry("measure", declaration.name).build)
        code = getattr(build, "__code__", None)
        return digests.of(build, None if code is None else marshal.dumps(code))
    return digests.of([modules.code_digest(home) for home in homes])


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"isogon": __version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scipy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def writable(directory: Path) -> None:
    """Make a folder and check that files can be put into it, before work starts.

    Raises:
        FileError: They can't.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with storage.atomic(directory / ".isogon-probe") as path:
            path.write_bytes(b"")
        (directory / ".isogon-probe").unlink(missing_ok=True)  # others may probe at the same time
    except OSError as error:
        reason = getattr(error, "problem", None) or error.strerror or str(error)
        raise FileError(
            f"the output folder can't be written ({reason})",
            got=str(directory),
            expected="a folder that you may write to",
            fix="Choose another one with --out.",
        ) from error


# --------------------------------------------------------------------------- internals


def _addressed(job: Job, out: str | Path | None, session: Session) -> tuple:
    """The checked job, its key, the folder of its record, its objects and their digests.

    The key stands for the job in words, the content of its inputs, and the source of the code
    that measures: the same words with other content, or an improved measure, are another record.
    """
    job, declaration = check_job(job)
    objects, prints = session.inputs(job, declaration)
    identity = job.to_json() | {
        "fingerprints": prints,
        "code": code_of(declaration),
        "isogon": __version__,
    }
    if not context.checked():
        identity["check"] = False
    if not declaration.seeded:
        identity.pop("seed")  # fresh weights are told apart by their digest
    key = key_of(identity)
    directory = None if out is None else Path(out) / f"{job.measure}-{key[:12]}"
    return job, key, directory, objects, prints


def _shares(job: Job, count: int, out: str | Path | None, session: Session) -> list[Record | None]:
    """The records of all shares of a job, None for those that are not there."""
    count = count if job.shard is None else job.shard[1]
    if count == 1 and job.shard is None:
        return []
    if out is None:
        raise OptionError("shares are kept as records", got="no folder", expected="out=")
    found = []
    for part in job.whole().shares(count):
        _, key, directory, _, _ = _addressed(part, out, session)
        found.append(load(directory, key))
    return found


def _precision(objects: Mapping[str, Any]) -> str:
    """Types of number that the models among some objects compute in, e.g. ``bfloat16``."""
    return ", ".join(sorted({precision(o) for o in objects.values() if isinstance(o, nn.Module)}))


def _bind(measure: Callable[..., Any], values: dict[str, Any]) -> tuple[list, dict]:
    positional, keywords = [], {}
    for p in inspect.signature(measure).parameters.values():
        if p.name in values:
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and not keywords:
                positional.append(values[p.name])
            else:
                keywords[p.name] = values[p.name]
    return positional, keywords


def _data_sets(noun: str, spec: Spec) -> Iterator[Spec]:
    """The data sets that an input names, itself or within: through(digits(test)[0], ...)."""
    if noun in ("Batches", "Points"):
        yield dataclasses.replace(spec, index=None)
    elif noun != "Module":
        yield from _data_within(noun, spec)


def _data_within(noun: str, spec: Spec) -> Iterator[Spec]:
    kind = noun.lower()
    if kind not in registry.HOMES or spec.name is None or not registry.has(kind, spec.name):
        return
    for inner, value in nesting.nested(registry.get(kind, spec.name), spec):
        yield from _data_sets(inner, parse(value))
