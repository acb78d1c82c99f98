"""Why an operation is refused, and the way out: the words of `UnsupportedOp`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from isogon.errors import UnsupportedOp
from isogon.nets.graph import UNKNOWN, place

# smooth functions of one number: `ig.piecewise` replaces them by interpolants
SMOOTH = {
    "gelu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "logit",
    "softplus",
    "log_sigmoid",
    "elu",
    "selu",
    "celu",
    "hardswish",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "asinh",
    "acosh",
    "atanh",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "erf",
    "erfc",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "pow",
    "square",
    "sinc",
    "special_expit",
    "special_erf",
}

# not functions of one number: nothing to interpolate
WHOLE = {
    "layer_norm": "divides by the spread of its own input",
    "native_layer_norm": "divides by the spread of its own input",
    "rms_norm": "divides by the size of its own input",
    "group_norm": "divides by the spread of its own input",
    "instance_norm": "divides by the spread of its own input",
    "local_response_norm": "divides by the size of its own input",
    "scaled_dot_product_attention": "multiplies its input with itself and takes a softmax",
    "_native_multi_head_attention": "multiplies its input with itself and takes a softmax",
    "softmax": "inside the network couples all its inputs smoothly",
    "_softmax": "inside the network couples all its inputs smoothly",
    "log_softmax": "inside the network couples all its inputs smoothly",
    "_log_softmax": "inside the network couples all its inputs smoothly",
    "logsumexp": "couples all its inputs smoothly",
    "glu": "multiplies one half of its input by the other's sigmoid",
    "norm": "takes a root of squares",
    "linalg_vector_norm": "takes a root of squares",
    "var": "squares its input",
    "std": "takes a root of squares",
    "bilinear": "multiplies two branches",
    "cosine_similarity": "divides by norms of its input",
    "prod": "multiplies entries",
    "cumprod": "multiplies entries",
    "lstm": "multiplies gates",
    "gru": "multiplies gates",
    "embedding": "looks its input up in a table",
}

JUMPING = {
    "sign",
    "round",
    "floor",
    "ceil",
    "trunc",
    "frac",
    "heaviside",
    "eq",
    "ne",
    "argmax",
    "argmin",
    "remainder",
    "fmod",
    "floor_divide",
    "bucketize",
    "searchsorted",
    "sgn",
    "hardshrink",
    "one_hot",
    "nonzero",
    "isnan",
    "isinf",
    "topk",
    "sort",
    "argsort",
}


def op_name(node: fx.Node) -> str:
    """The operation's name without its namespace and overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[-1] if schema else getattr(node.target, "__name__", node.op)


INTERPOLATE = "Replace it by interpolants first: model = ig.piecewise(model, knots=64, example=x)."
NO_PRODUCT = (
    "Nothing makes a product of two branches piecewise linear (ig.piecewise does not either): use "
    "measures that need no linear regions, or a model without it."
)


def fix_of_product(node: fx.Node, products: Sequence[fx.Node]) -> str:
    """What to do about a product: interpolants, if it is a function of one number."""
    scalar = op_name(node) in ("mul", "div") and node not in products
    return INTERPOLATE if scalar else NO_PRODUCT


def of_sizes(sizes: tuple[int | None, ...]) -> tuple[str, str]:
    """What is wrong with a shape that is not one of samples on the first axis, and what to do."""
    if UNKNOWN in sizes:
        return (
            "has a size that depends on values (what a mask keeps)",
            "Index with positions instead of a mask: keep = mask.nonzero()[:, 0], made in "
            "__init__; or zero the others: x * mask.",
        )
    return (
        "moves, merges or reduces the axis of the samples",
        "Keep the samples on the first axis: x.flatten(1), dimensions counted from 1.",
    )


def refusal(
    nodes: Sequence[fx.Node], node: fx.Node, products: Sequence[fx.Node] = ()
) -> UnsupportedOp:
    """The error for a node without a rule: says why, and names what else stands in the way.

    Args:
        nodes: All nodes that lead to the output.
        node: The one at work.
        products: Those at which two branches are multiplied.
    """
    op = op_name(node)
    others = [n for n in nodes if op_name(n) in WHOLE and n is not node]
    got, expected = str(node.target), "continuous piecewise-linear operations"
    if op in SMOOTH and products and not others:
        more = f" (and {len(products) - 1} more)" if len(products) > 1 else ""
        return UnsupportedOp(
            f"{op} at {place(node).name!r} is smooth, and {op_name(products[0])} at "
            f"{place(products[0]).name!r}{more} multiplies two branches that both depend on the "
            "input: not piecewise linear",
            got=got,
            expected=expected,
            fix=NO_PRODUCT,
        )
    if op in SMOOTH and not others:
        sites = [place(n).name for n in nodes if op_name(n) in SMOOTH]
        rest = f" (and {len(sites) - 1} more smooth sites)" if len(sites) > 1 else ""
        return UnsupportedOp(
            f"{op} at {place(node).name!r}{rest} is smooth, not piecewise linear",
            got=got,
            expected=expected,
            fix=INTERPOLATE,
        )
    if op in SMOOTH or op in WHOLE:
        blocking = [node, *others] if op in WHOLE else others
        kinds: dict[str, list[fx.Node]] = {}
        for n in blocking:
            kinds.setdefault(op_name(n), []).append(n)
        named = "; ".join(
            f"{kind} at {place(found[0]).name!r}"
            + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
            + f" {WHOLE[kind]}"
            for kind, found in list(kinds.items())[:4]
        )
        return UnsupportedOp(
            f"{named}: not piecewise linear, and not a scalar activation that ig.piecewise "
            "could replace",
            got=got,
            expected=expected,
            fix="Use measures that need no linear regions, or a model without these layers.",
        )
    if op in JUMPING:
        return UnsupportedOp(
            f"{op} at {place(node).name!r} is not continuous", got=got, expected=expected
        )
    return UnsupportedOp(
        f"no rule lowers {op} at {place(node).name!r}",
        got=got,
        expected=expected,
        fix=f'If it is continuous piecewise linear, add a rule: @isogon.registry.lowers("{got}") '
        "on a function (lower, *arguments) as in isogon.cpwl.rules.",
    )
