"""From what a caller names to the module that is trained."""

from __future__ import annotations

import copy

from torch import nn

from isogon import nets, registry
from isogon.data import Samples
from isogon.errors import IsogonError, ModelError, OptionError
from isogon.nets.facts import facts, filled
from isogon.nets.hygiene import cast
from isogon.nets.labels import classes_of
from isogon.nets.outputs import output_tensor
from isogon.nets.outputs import outputs as outputs_of
from isogon.nets.weights import put, read_weights
from isogon.specs import Spec, parse


def build_network(
    arch: str | Spec | nn.Module, train: Samples, outputs: int
) -> tuple[nn.Module, str | None]:
    """A module to train and the spec that builds it again.

    Args:
        arch: A spec (its channels, classes and size are filled in from the data), or a module
            (a copy of it is trained). ``ARCH@FILE`` begins with the weights of a file.
        train: The training samples.
        outputs: Number of outputs that the loss needs.

    Raises:
        OptionError: Neither a spec nor a module.
    """
    if isinstance(arch, nn.Module):
        return copy.deepcopy(arch), None
    if not isinstance(arch, str | Spec):
        raise OptionError(
            "can't train this",
            got=type(arch).__name__,
            expected="an architecture's spec or a torch.nn.Module",
        )
    spec = complete(parse(arch), train, outputs)
    bare = Spec(spec.name, spec.args, spec.kwargs, module=spec.module)
    net = nets.build(bare)
    if spec.path is not None:
        put(net, read_weights(spec.path)[0], source=spec.path, what=str(bare))
    return net, str(bare)


def complete(spec: Spec, train: Samples, outputs: int) -> Spec:
    """The spec with the arguments that follow from the data and were not given."""
    if spec.name is None:
        raise OptionError(
            "a file can't be trained without its architecture",
            got=str(spec),
            expected=f"ARCH(...)@{spec.path}",
            fix="Name the architecture before the @.",
        )
    builder = registry.import_object(spec) if spec.module else registry.get("arch", spec.name).build
    return filled(spec, builder, facts(train, classes=outputs))


def outputs_for(train: Samples, loss: str) -> int:
    """Number of outputs that the loss needs: classes, or numbers of a target."""
    labels = train.labels
    if loss == "mse":
        return max(1, labels[0].numel())
    if train.classes:
        return len(train.classes)
    return int(labels.max()) + 1


def check_fit(model: nn.Module, train: Samples, outputs: int, loss: str) -> None:
    """One forward pass before the first step, so that a misfit is said in one line.

    Raises:
        ModelError: The model does not take the inputs, or gives the wrong number of outputs.
        DataError: Labels that are no classes.
    """
    import torch

    x, _ = train.take(range(min(2, len(train))))
    model.eval()
    try:
        with torch.no_grad():
            x = cast(x, model)
            classes = loss == "cross_entropy"
            output, below = outputs_of(model, x) if classes else (output_tensor(model(x)), None)
            shape = list(output.shape)
    except IsogonError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(
            f"the model does not take these inputs ({str(error).splitlines()[0]})",
            got=f"inputs {list(x.shape)}",
            fix="Choose another architecture, or set its channels and size.",
        ) from error
    finally:
        model.train()
    if below is None:
        return
    # a softmax of log p is p: only one of probabilities is another loss than it looks like
    if below.shape == output.shape and not torch.equal(below, output) and bool((output >= 0).all()):
        raise ModelError(
            "the model ends in a softmax: cross-entropy would take its probabilities for logits",
            got=f"outputs from {float(output.min()):.3g} to {float(output.max()):.3g}",
            expected="logits, or log-probabilities",
            fix="Return what stands before the softmax; the classes are the same.",
        )
    dense = len(shape) > 2 and train.labels.dim() == len(shape) - 1
    found = classes_of(train.labels, dense=dense)
    enough = max(2, shape[1]) >= outputs if len(shape) >= 2 else outputs <= 2
    if not enough and not train.classes and int(found.min()) == 1 and outputs == shape[1] + 1:
        classes_of(found, shape[1], dense=dense)  # says that they are counted from 1
    if not enough or not (dense or len(shape) <= 2):
        raise ModelError(
            "the model has the wrong outputs",
            got=f"{shape} for inputs {list(x.shape)}",
            expected=f"[{len(x)}, {outputs}]: one logit per class",
            fix=f"Build it with classes={outputs}.",
        )
