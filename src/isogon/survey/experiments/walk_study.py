"""A walk as a study: choices of samples, a record that an interrupted one goes on from, figures."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from isogon import data, readings
from isogon.data import Batches
from isogon.errors import DataError, DependencyError, OptionError
from isogon.measures.manifold.crossings import with_regions
from isogon.measures.manifold.noise import REPROJECT, noise_kept
from isogon.measures.manifold.walk import walk
from isogon.nets import hygiene, load
from isogon.nets.outputs import logits
from isogon.storage import atomic, digests, modules
from isogon.survey.declaring.job import Job
from isogon.survey.running.record import Record
from isogon.survey.running.record import load as load_record
from isogon.survey.running.run import versions

if TYPE_CHECKING:
    import pandas as pd


CHUNK = 1000  # steps between two savings of a long walk
CROSSINGS = 5000  # of linear regions, that are looked for along a walk

# What a walk is made on where no model and data are named.
SETTINGS = {
    "laptop": ("trained(cnn, digits, epochs=10)", "digits(test)"),
    "paper": (
        "trained(medium_cnn, mnist, seed=42, epochs=10, optimizer=sgd, lr=0.01, batch_size=60,"
        " momentum=0.0, schedule=constant, normalize=known, channels_last=True)",
        "mnist(test)",
    ),
    "small": (  # the networks of plans/arrangement/labels.yaml at that scale
        "trained(cifar_vgg11_bn(width=16), imagefolder('cifar10-imagefolder.zip', train, 20000,"
        " seed=0), epochs=12, batch_size=128, channels_last=True, label_noise=0.0,"
        " augment=(flip, 'crop(4)'), seed=0,"
        " snapshot_at=(0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0))",
        "imagefolder('cifar10-imagefolder.zip', test, 2000, seed=0)",
    ),
    "cifar": (
        "trained(cifar_vgg11_bn, cifar10, seed=5, epochs=20)",
        "cifar10(test)",
    ),
}


class WalkStudy:
    """Model, samples, random choices and the folder of one experiment."""

    def __init__(
        self,
        name: str,
        model: Module | None,
        batches: Batches | None,
        scale: str,
        seed: int,
        out: str,
    ) -> None:
        if scale not in SETTINGS:
            raise OptionError("no such scale", got=repr(scale), expected=", ".join(SETTINGS))
        spec, source = SETTINGS[scale]
        self.name, self.seed, self.out = name, seed, Path(out)
        self.batches = data.as_batches(batches) if batches is not None else data.batches(source)
        self.model = load.load(spec) if model is None else model
        self.generator = torch.Generator().manual_seed(seed)
        self.draw = random.Random(seed)  # the published choices of samples, seed by seed
        self.samples = self.batches.samples

    def image(self, index: int) -> Tensor:
        """One sample [1, ...] on the model's device."""
        x = torch.as_tensor(self.samples[index][0])
        return hygiene.cast(x[None], self.model)

    def choose(self, index: int | None, most: float, but: int | None = None) -> int:
        """The index given, or a random one of a sample that the model is not too sure of."""
        count = len(self.samples)
        if index is not None:
            if not -count <= index < count:
                raise OptionError("no such sample", got=index, expected=f"0 .. {count - 1}")
            return index % count
        refused = {but} & set(range(count))
        while len(refused) < count:
            i = self.draw.randrange(count)
            if i not in refused and (most >= 1 or self._probability(i) <= most):
                return i
            refused.add(i)
        raise DataError(
            "the model is too sure of every sample",
            got=f"no probability up to {most}",
            expected="a sample to start from",
            fix="Raise --max-probability.",
        )

    def _probability(self, index: int) -> float:
        with torch.no_grad(), hygiene.preserved(self.model) as model:
            z = logits(model, self.image(index))
        z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
        return float(z.double().softmax(1).max())

    def walk(
        self,
        start: int | None,
        end: int | None,
        most: float,
        *,
        steps: int,
        step: float,
        kernel: bool = False,
        mirrored: bool = False,
        noise_steps: int = 0,
        patience: int = 0,
    ) -> readings.Path:
        """Choose the samples, walk, and draw.

        Args:
            start: Index of the first sample; None: drawn.
            end: Index of the sample to reach; None: drawn, or the first one where it is mirrored.
            most: Most probability of a sample that is drawn.
            steps: Most steps.
            step: Their length.
            kernel: In the kernel, in a random direction, instead of to a sample.
            mirrored: To the mirror image of the sample.
            noise_steps: So many steps in the kernel lead to where the walk along the leaf starts.
            patience: Steps without coming closer, after which the walk ends.
        """
        first = self.choose(start, most)
        image, facts = self.image(first), {"start": first}
        origin = image
        options: dict[str, Any] = {"step": step, "clamp": (0, 1), "patience": patience}
        if not kernel:
            if mirrored:
                facts["end"] = first if end is None else self.choose(end, 1.0)
            else:
                facts["end"] = self.choose(end, most, but=first)
            target = self.image(facts["end"])
            options["toward"] = target.flip(-1) if mirrored else target
        if kernel or noise_steps:
            off: dict[str, Any] = {"direction": torch.randn(origin.shape, generator=self.generator)}
            off |= {"along": "kernel", "reproject": REPROJECT}
            if kernel:
                options |= off
            else:
                # not by walk(noise=): the direction is that of the published seeds
                facts["noise_steps"] = noise_steps
                noisy = walk(
                    self.model,
                    origin,
                    steps=noise_steps,
                    step=step,
                    clamp=(0, 1),
                    frames=1,
                    **off,
                )
                origin = torch.from_numpy(noisy.arrays["end"])
        path = self._recorded(origin, steps, facts, options, image)
        self._draw(path)
        path.save(self.out / "reading")
        return path

    def _recorded(
        self,
        origin: Tensor,
        steps: int,
        facts: dict[str, int],
        options: dict[str, Any],
        image: Tensor,
    ) -> readings.Path:
        """The walk from its record: found whole, or taken up where it was left, or begun.

        Where it does not start at the image itself, ``meta["noise_kept"]`` says how much of what
        was added to the image is there at the end.
        """
        job = Job(self.name, {}, {**facts, "steps": steps, "step": options["step"]}, self.seed)
        code = [modules.code_digest(f.__module__) for f in (walk, with_regions)]
        key = digests.of(job.to_json(), self.model, origin, options, code)[:24]
        folder = self.out / "record"
        record = load_record(folder, key)
        began, clock = datetime.now(UTC), time.perf_counter()
        spent = 0.0
        if record is not None:
            spent = float(record.provenance["seconds"])

        def keep(path: readings.Path) -> None:
            seconds = spent + time.perf_counter() - clock
            facts = {"started": began.isoformat(timespec="seconds"), "seconds": seconds}
            Record(job, path, {**facts, "versions": versions()}, key).save(folder)

        path = None if record is None else record.reading
        assert path is None or isinstance(path, readings.Path)
        if path is not None and path.complete:
            return path
        while path is None or (path.meta["ended"] == ["steps"] and _taken(path) < steps):
            done = 0 if path is None else _taken(path)
            begin: Any = origin if path is None else path  # a noun: images, or a walk to go on from
            path = walk(
                self.model,
                begin,
                steps=min(done + CHUNK, steps),
                stop=10 * options["step"],
                **(options if path is None else {"patience": options["patience"]}),
            )
            path.meta |= {"experiment": {"name": self.name, "seed": self.seed, **facts}}
            path.meta["classes"] = list(self.batches.classes or [])
            path.complete = False
            keep(path)
        path.complete = True
        path = with_regions(self.model, path, limit=CROSSINGS)
        if origin is not image:
            end = torch.from_numpy(path.arrays["end"])
            path.meta["noise_kept"] = float(noise_kept(image, origin, end)[0])
        path.meta["outcome"] = outcome(path)
        keep(path)
        return path

    def _draw(self, path: readings.Path) -> None:
        """The strip, the figure and, for images, the GIF."""
        from isogon import show
        from isogon.show.walk import animate, strip

        figures = {"strip.png": strip(path), "figure.png": show.draw(path)}
        for name, figure in figures.items():
            with atomic(self.out / name) as temporary:
                figure.savefig(temporary, format="png", dpi=200)
        if path.arrays["start"].ndim >= 3:
            animate(path, self.out / "walk.gif")
            try:
                animate(path, self.out / "walk.mp4")
                path.meta["video"] = "walk.gif and walk.mp4"
            except DependencyError as error:
                path.meta["video"] = f"walk.gif alone, no walk.mp4: {error}"


def _taken(path: readings.Path) -> int:
    """Steps that a walk has taken."""
    return int(path.table["step"].max())


def outcome(path: readings.Path) -> str:
    """In a sentence, how a walk ended."""
    rows = path.table[path.table["walk"] == 0]
    first, last = rows.iloc[0], rows.iloc[-1]
    steps, ended = f"{int(last['step'])} steps", path.meta["ended"][0]
    change = f"prediction {_label(path, first)} -> {_label(path, last)}"
    if "noise_kept" in path.meta:
        change += f"; {path.meta['noise_kept']:.3g} of the noise is kept"
    if "target" not in path.arrays:
        low, high = rows["probability"].min(), rows["probability"].max()
        return (
            f"{steps} in the kernel, {last['from_start']:.3g} from the start: {change}, "
            f"probability between {low:.4f} and {high:.4f}"
        )
    far = f"{last['distance']:.3g} from the target ({first['distance']:.3g} at the start)"
    if ended == "distance":
        return f"reached the target in {steps}, {far}: {change}"
    if ended in ("patience", "stuck"):
        return (
            f"stalled after {steps}, {far}: the leaf comes no nearer here, "
            f"{last['alignment']:.2g} of what is left lies along it; {change}"
        )
    return f"ended after {steps}, {far}: {change}"


def _label(path: readings.Path, row: pd.Series) -> str:
    names, k = path.meta.get("classes") or [], int(row["prediction"])
    return f"{names[k] if k < len(names) else k} (p = {row['probability']:.3f})"
