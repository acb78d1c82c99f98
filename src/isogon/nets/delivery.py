"""Within a chunk: models run one after another, and every watcher gets its values in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from isogon.errors import DataError, ModelError, OptionError
from isogon.nets.finite import check_finite, check_outputs
from isogon.nets.hygiene import cast, preserved
from isogon.nets.outputs import output_tensor, outputs
from isogon.nets.sites import Site
from isogon.nets.tap import unreached, wanted_modules
from isogon.nets.unwrap import uncompiled, unwrap
from isogon.nets.watch import misfit, watched
from isogon.nets.watchers import INPUT, LOGITS, OUTPUT, Key, Orbit, Reducer, Viewer

_INPUT, _OUTPUT, _LOGITS = _AROUND = tuple((s.path, s.call) for s in (INPUT, OUTPUT, LOGITS))

Place = tuple[str, int]  # path and call: what a site is, whatever else is known of it
Address = tuple[str, Place]


class Delivery:
    """The models with their hooks, and who waits for what."""

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        watchers: Sequence[Viewer],
        orbit: Orbit | None,
        numbers: bool = True,
    ) -> None:
        self.models = {name: unwrap(m) for name, m in models.items()}
        self.watchers, self.orbit, self.most = list(watchers), orbit, 0
        self.numbers = numbers
        self.sites: dict[str, dict[Place, Site]] = {name: {} for name in models}
        self.keys = [{self._address(key): key for key in w.sites} for w in self.watchers]
        self.asking: dict[Address, list[int]] = {}
        for i, keys in enumerate(self.keys):
            for address in keys:
                self.asking.setdefault(address, []).append(i)
        self.reducers = {i: w for i, w in enumerate(self.watchers) if isinstance(w, Reducer)}
        self.reduced: dict[int, dict[Address, Tensor]] = {i: {} for i in self.reducers}
        self.copied: set[Address] = set()  # what is overwritten in place before it is taken
        self.giving = False  # whether a watcher is at work
        self.active: str | None = None  # models may share modules: only the one that runs reports
        self.parts: dict[Address, list[Tensor]] = {}

    def _address(self, key: Key) -> Address:
        name, site = key if isinstance(key, tuple) else (next(iter(self.models)), key)
        if name not in self.models or (not isinstance(key, tuple) and len(self.models) > 1):
            raise OptionError(
                "a watcher does not say which model",
                got=str(key),
                expected=f"(name, site) with one of: {', '.join(self.models)}",
            )
        self.sites[name][site.path, site.call] = site
        return name, (site.path, site.call)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.run = {n: self._hooked(stack, n, m) for n, m in self.models.items()}
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def _hooked(self, stack: ExitStack, name: str, model: nn.Module) -> Callable[[Tensor], Any]:
        """The model's forward pass, with hooks where somebody watches."""
        stack.enter_context(preserved(model))
        chosen = [s for place, s in self.sites[name].items() if place not in _AROUND]
        if not chosen:  # nothing to look into: as fast as the model can
            stack.enter_context(uncompiled(model))
            return lambda x: model(x.clone())  # a first layer in place would change the data
        sites, modules, operations = wanted_modules(model, chosen)

        def report(path: str, call: int, op: str, value: Tensor) -> None:
            if (path, call) in sites and self.active == name:
                self.arrive((name, (path, call)), value.detach())

        return stack.enter_context(watched(model, report, modules=modules, operations=operations))

    # ------------------------------------------------------------------ a chunk

    @torch.no_grad()
    def chunk(self, x: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Run every model on a chunk ``[n, ...]`` and hand out what it gives."""
        self.labels, self.rows = labels, rows
        self.open = set(range(len(self.watchers)))
        while self.open:
            before = set(self.copied)
            self.missing = {i: set(self.keys[i]) for i in self.open}
            self.held: dict[Address, tuple[Tensor, int | None]] = {}
            needed = {name for i in self.open for name, _ in self.keys[i]}
            moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}
            for i in [i for i in self.open if not self.keys[i]]:
                self.deliver(i)  # wants labels only
            for name in self.models:
                if name in needed:
                    self.forward(name, x, moved)
            self.held = {}
            if self.open and self.copied == before:
                name, place = next(iter(self.missing[min(self.open)]))
                raise unreached(self.sites[name][place])

    def forward(
        self, name: str, x: Tensor, moved: dict[tuple[torch.device, torch.dtype], Tensor]
    ) -> None:
        """One model on the chunk, or on all transforms of it."""
        model, wanted = self.models[name], set(self.sites[name])
        x = cast(x, model)
        if self.orbit is not None:  # models of one dtype share the transformed inputs
            place = (x.device, x.dtype)
            if place not in moved:
                moved[place] = self.orbit.orbit(x).flatten(0, 1)
            x = moved[place]
        self.pieces, self.reached = 1, set()
        if _INPUT in wanted:
            self.arrive((name, _INPUT), x)
        if wanted <= {_INPUT}:
            return
        run = self.run[name]
        parts = x.split(self.most) if self.orbit is not None else (x,)
        self.pieces = len(parts)
        for part in parts:
            # a softmax is looked for only where somebody asks what is below it
            if _LOGITS in wanted:
                output, below = self._during(name, lambda x: outputs(run, x), part)
                if self.numbers and bool((below.isnan() | below.isposinf()).any()):
                    check_finite(model)
                    check_outputs(model, part, below)
                self.arrive((name, _LOGITS), below)
            else:
                output = self._during(name, run, part)
            if _OUTPUT in wanted:  # which tensor of a dict that is matters to nobody else
                self.arrive((name, _OUTPUT), output_tensor(output))
        for place in wanted - {_INPUT}:
            if (name, place) not in self.reached:
                raise unreached(self.sites[name][place])

    def _during(self, name: str, run: Callable[[Tensor], Any], x: Tensor) -> Any:
        """One forward pass, whose activations count.

        Raises:
            ModelError: The model stumbles over its inputs.
        """
        self.active = name
        try:
            return run(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError) as error:
            if self.giving:  # a watcher's, inside a hook
                raise
            raise misfit(x, error) from error
        finally:
            self.active = None

    def arrive(self, address: Address, value: Tensor) -> None:
        """A value is there: to whom it was the last one missing, all is given."""
        self.reached.add(address)
        waiting = [i for i in self.asking[address] if i in self.open]
        if not waiting:
            return
        if self.pieces > 1:  # an orbit that is larger than a pass comes piece by piece
            held = self.parts.setdefault(address, [])
            held.append(value.clone())
            if len(held) < self.pieces:
                return
            value = torch.cat(self.parts.pop(address))
        whole = [i for i in waiting if i not in self.reducers]
        parts = [self._reduce(i, address, value) for i in waiting if i in self.reducers]
        if whole or not parts or not all(parts):
            self.check(address, value)
        version = None
        if any(self.missing[i] - {address} for i in whole):
            if value.is_inference() or address in self.copied:
                value = value.clone()
            else:
                version = value._version
            self.held[address] = value, version
        for i in waiting:
            self.missing[i].discard(address)
            if not self.missing[i]:
                self.deliver(i, {address: value})

    def _reduce(self, i: int, address: Address, value: Tensor) -> bool:
        """What a watcher takes of a value at once; whether that shows that it is all numbers."""
        self.check_rows(address, value)
        watcher = self.reducers[i]
        with self._apart():
            made = watcher.reduced(self.keys[i][address], self.shaped(value))
        self.reduced[i][address] = made
        return watcher.keeps_nan and math.isfinite(float(made.sum()))

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """While a watcher computes: within a forward pass that is no operation of the model."""
        with torch._C.DisableTorchFunction() if self.active is not None else nullcontext():
            self.giving = True  # stays, where the watcher raises
            yield
            self.giving = False

    def deliver(self, i: int, last: dict[Address, Tensor] | None = None) -> None:
        """Give a watcher its values; not where one of them was overwritten while it waited."""
        values, keys = self.reduced.get(i) or last or {}, self.keys[i]
        for address in keys.keys() - values.keys():
            value, version = self.held[address]
            if version is not None and value._version != version:
                self.copied.add(address)
                self.missing[i].add(address)
            values[address] = value
        if self.missing[i]:
            return
        self.open.discard(i)
        given = {key: values[address] for address, key in keys.items()}
        if i in self.reducers:
            self.reduced[i] = {}
        else:
            given = {key: self.shaped(value) for key, value in given.items()}
        with self._apart():
            self.watchers[i].update(given, self.labels, self.rows)
        for address in [a for a in keys if a in self.held]:
            if not any(j in self.open for j in self.asking[address]):
                del self.held[address]

    def shaped(self, value: Tensor) -> Tensor:
        """Samples first, then transformations, where there are any."""
        if self.orbit is None:
            return value
        return value.reshape(len(self.orbit), -1, *value.shape[1:]).transpose(0, 1)

    def check_rows(self, address: Address, value: Tensor) -> None:
        """Refuse what has no row per sample."""
        count = len(self.rows) * (1 if self.orbit is None else len(self.orbit))
        if value.dim() == 0 or len(value) != count:
            raise ModelError(
                "an activation has no row per sample",
                got=f"{list(value.shape)} at {self._where(address)}, for {count} inputs",
                expected=f"[{count}, ...]",
                fix="Choose other sites, or wrap the model so that the samples come first.",
            )

    def _where(self, address: Address) -> str:
        name, place = address
        return f"{self.sites[name][place]}" + (f" of {name}" if name else "")

    def check(self, address: Address, value: Tensor) -> None:
        """Refuse what has no row per sample, and what is not a number."""
        self.check_rows(address, value)
        if not self.numbers or not value.is_floating_point() or math.isfinite(float(value.sum())):
            return
        bad = value.reshape(len(value), -1).isnan().any(1)
        if bool(bad.any()):
            check_finite(self.models[address[0]])
            sample = int(self.rows[int(bad.nonzero()[0]) % len(self.rows)])
            raise DataError(
                f"NaN at {self._where(address)}",
                got=f"for {int(bad.sum())} of {len(value)} inputs, first of sample {sample}",
                expected="numbers",
                fix="Look at the layer before it, or leave out these samples.",
            )
