"""What Python calls: `isogon.survey` and `isogon.compare`, which write their page as well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogon.survey.pages import report
from isogon.survey.whole import compare as comparison
from isogon.survey.whole import survey as everything
from isogon.survey.whole.kept import Survey

if TYPE_CHECKING:
    from torch.nn import Module

    from isogon.data.batches import DataLike


def survey(
    model: str | Module,
    batches: DataLike,
    *,
    budget: float = 120.0,
    out: str | Path,
    **options: Any,
) -> Survey:
    """Run every measure that a model and its data can supply; write ``report.html``.

    Run again, it computes only what is missing. A notebook shows the findings.

    Args:
        model: Spec of a model, or a module from raw inputs ``[N, ...]`` to logits ``[N, C]``; it
            leaves as it came in.
        batches: Spec of labelled data, or a re-iterable of ``(x, y)``, e.g. a DataLoader.
        budget: Seconds for the measures.
        out: Folder of the survey.
        **options: ``only``, ``skip`` (names of measures), ``again``, ``seed``, as in
            `isogon.survey.whole.survey.survey`.

    Returns:
        The survey: ``lines`` (done, skipped, failed, with reasons), ``records()``, ``page``.

    Raises:
        IsogonError: The model or the data can't be read, or ``out`` can't be written.
    """
    return _paged(everything.survey(model, batches, budget=budget, out=out, **options))


def compare(
    a: str | Module,
    b: str | Module,
    batches: DataLike,
    *,
    train: DataLike | None = None,
    out: str | Path,
    **options: Any,
) -> Survey:
    """Every measure of two networks, and each measure of one side by side; write ``report.html``.

    Similarity, stitching, and, where the architectures agree, matching and barrier; the measures
    of one network of both on the same inputs, with their differences and the intervals of these.

    Args:
        a: Spec of a model, or a module; it leaves as it came in.
        b: The other one.
        batches: Spec of labelled data, or a re-iterable of ``(x, y)``.
        train: Data that stitches are fitted on; None: the data's own training split, if it has
            one, else what needs it is skipped by name.
        out: Folder of the comparison.
        **options: ``budget`` (120 seconds), ``names`` (two, for the report), ``only``, ``skip``,
            ``again``, ``seed``, as in `isogon.survey.whole.compare.compare`.

    Returns:
        The comparison: ``lines``, ``records()``, ``page``.

    Raises:
        IsogonError: A model or the data can't be read, or ``out`` can't be written.
    """
    return _paged(comparison.compare(a, b, batches, train=train, out=out, **options))


def _paged(found: Survey) -> Survey:
    report.write(found)
    if found.interrupted:
        raise KeyboardInterrupt
    return found
