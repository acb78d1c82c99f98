"""Findings of what a page says of the samples: accuracy of a network, agreement of two."""

from __future__ import annotations

from collections.abc import Mapping

from isogon.findings.finding import Finding, Names, described, effect, nothing
from isogon.findings.intervals import paired_shares, wilson
from isogon.findings.words import count, in_points, percent, span, start

HERE = "overview"  # where the page tells of the samples


def finds_accuracy(share: float, total: int, classes: int) -> list[Finding]:
    """How many samples a network has right, beside guessing."""
    right = round(share * total)
    low, high = wilson(right, total)
    text = f"It has {right:,} of {count(total, 'sample')} right, {percent(share)}."
    against = f"95 % interval {span(low, high, percent)}"
    if classes < 2:
        return [described(text, percent(share), against, share).of(HERE)]
    guess = 1 / classes
    against += f"; {percent(guess)} by guessing among {classes} classes"
    if low <= guess:
        text = f"It has {right:,} of {count(total, 'sample')} right, no more than guessing would."
        return [nothing(text, percent(share), against, 1.0).of(HERE)]
    size = (share - guess) / (1 - guess)
    return [described(text, percent(share), against, 0.6 * size).of(HERE)]


def differs_accuracy(held: Mapping[str, int], names: Names) -> list[Finding]:
    """The difference of two accuracies on the same samples, and how often the two say the same."""
    total = held.get("total", 0)
    if not total:
        return []
    gap, low, high = paired_shares(held["only_b"], held["only_a"], total)
    value = f"{in_points(abs(gap))} points"
    ends = span(low, high, in_points)
    against = f"95 % interval {ends} points, paired over {count(total, 'sample')}"
    only = f"{held['only_b']} samples only {names.b} has right, {held['only_a']} only {names.a}"
    if low <= 0 <= high:
        text = f"In accuracy {names.a} and {names.b} are not told apart: {only}."
        found = [nothing(text, value, against, 1.0)]
    else:
        word = "more" if gap > 0 else "fewer"
        text = f"{start(names.b)} has {value} {word} right than {names.a}: {only}."
        # a tenth of all samples is a large difference of two networks of one task
        found = [effect(text, value, against, 10 * abs(gap))]
    share = held["same"] / total
    low, high = wilson(held["same"], total)
    text = f"{start(names.a)} and {names.b} say the same of {percent(share)} of the samples."
    against = f"95 % interval {span(low, high, percent)}; 100 % would be one function here"
    found.append(described(text, percent(share), against, 10 * (1 - share)))
    return [f.of(HERE) for f in found]
