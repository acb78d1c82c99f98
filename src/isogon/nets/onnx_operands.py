"""What a builder of an ONNX operator is given: constants, stand-ins, attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isogon.errors import UnsupportedOp

__all__ = ["Operands"]

MAX_LIST = 10_000  # numbers that are read at build time: shapes, axes, bounds, scales


@dataclass
class Operands:
    """What a node is given.

    Args:
        inputs: Per input: a constant, the stand-in of a tensor that depends on the input, or None.
        depends: Per input, whether it depends on the network's input.
        attributes: The node's attributes.
        version: Version of the operator set.
        count: Number of samples of the stand-ins.
        outputs: Number of outputs.
        static: Positions of inputs that were read at build time.
    """

    inputs: list[Any]  # of tensors, None where an optional one is left out
    depends: list[bool]
    attributes: dict[str, Any]
    version: int
    count: int
    outputs: int = 1
    static: set[int] = field(default_factory=set)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Whether the optional input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def read(self, position: int, what: str) -> list | None:
        """A constant input as a list of numbers; None where it is not given."""
        if not self.has(position):
            return None
        if self.depends[position]:
            raise UnsupportedOp(
                f"an ONNX node whose {what} depend on the values of its input",
                expected=f"constant {what}",
            )
        self.static.add(position)
        value = self.inputs[position]
        assert value is not None
        if value.numel() > MAX_LIST:
            raise UnsupportedOp(
                f"an ONNX node with {what} of {value.numel()} numbers", expected=f"<= {MAX_LIST}"
            )
        return value.flatten().tolist()

    def ints(self, name: str, position: int) -> list[int] | None:
        """Integers given as an attribute (older files) or as a constant input."""
        found = self.attributes.get(name)
        found = self.read(position, name) if found is None else found
        return None if found is None else [int(i) for i in found]

    def number(self, name: str, position: int, default: float | None) -> float | None:
        """A number given as an attribute (older files) or as a constant input."""
        found = self.attributes.get(name)
        if found is None:
            values = self.read(position, name)
            found = values[0] if values else None
        return default if found is None else float(found)
