"""`isogon sweep` and `isogon status`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from isogon import stopping
from isogon.cli.commands import surroundings
from isogon.cli.listing import OFFLINE
from isogon.cli.parser import Parser
from isogon.survey.declaring.declare import Option

if TYPE_CHECKING:
    from isogon.survey.running.slurm import Queue
    from isogon.survey.running.states import JobState
    from isogon.survey.running.sweep import Sweep


EXAMPLE = """\
example plan:
  axes:
    seed: [0, 1, 2]
  model: trained(cnn, digits, epochs=2, seed={seed})
  batches: digits(test)
  measures:
    - name: data-matrix
    - name: invariance
      family: [rotations(8), rotations(16)]

examples, with that text in plan.yaml:
  isogon sweep plan.yaml --check
  isogon sweep plan.yaml --on processes --out sweeps/plan
  isogon status sweeps/plan
  isogon report sweeps/plan

on a cluster, and at another scale of a plan that has one:
  isogon sweep plan.yaml --on slurm --shards 8
  isogon sweep plans/invariance/augmentation.yaml --scale paper --on slurm
"""
OPTIONS = (
    Option("on", ["literal", "inline", "processes", "slurm"], "inline", help="where the jobs run"),
    Option("scale", ["union", "str", "none"], None, help="one of the plan's scales, e.g. paper"),
    Option("shards", ["union", "int", "none"], None, help="jobs that share each measurement"),
    Option("check", "bool", False, help="only check the plan and list its jobs"),
    Option("retry", "bool", False, help="also run again what failed"),
    Option("workers", ["union", "int", "none"], None, help="processes; one per core or GPU"),
    Option("minutes", "int", 60, help="time limit of a Slurm job"),
    Option("cpus", "int", 1, help="cores of a Slurm job"),
    Option("gpus", "int", 0, help="GPUs of a Slurm job"),
    Option("memory_gb", ["union", "int", "none"], None, help="memory of a Slurm job"),
    Option("partition", ["union", "str", "none"], None, help="Slurm partition"),
    Option("parallel", "int", 256, help="Slurm jobs that run at once"),
)


def sweep(words: list[str]) -> int:
    """`isogon sweep PLAN`: check every job, then run what is missing."""
    from isogon.cli import console

    parser = Parser(
        "sweep",
        "Run every job of a plan, then draw its figures into one HTML page. All jobs are checked\n"
        "against their measures before the first one starts. Run again, it does what is missing,\n"
        "also what a process that was killed or a machine that went down had begun; --retry adds\n"
        "what failed. Several may work on one folder: each job is run by one of them.\n"
        "With --shards N each measurement is shared out over N jobs, which see a part of the data\n"
        "each; the last one merges them, or the sweep when it is run again.\n"
        "Exit code 0 when every job is done (--on slurm: or waits or runs in Slurm), else 1;\n"
        "after Ctrl-C 130, after SIGTERM 143, with what is finished in the report.",
        EXAMPLE,
    )
    parser.positional("plan", "a YAML file")
    for option in OPTIONS:
        if option.name in ("check", "retry"):
            parser.flag(option.name, option.help)
        else:
            parser.option(option)
    parser.commons(out=None, skip=("seed", "again"))
    options = parser.parse(words)
    out = Path(options.out) if options.out else Path("sweeps") / Path(options.plan).stem
    with surroundings(options):
        from isogon.survey.declaring import plan

        found = plan.read_plan(options.plan, scale=options.scale, shards=options.shards)
        if options.check:
            console.listing([(i, j.command()) for i, j in found.ids().items()])
            console.say(f"{console.counted(len(found.jobs), 'job')}, valid throughout")
            return 0
        from isogon import context
        from isogon.survey.running import executors, freshness, slurm
        from isogon.survey.running.run import resolve_device, writable
        from isogon.survey.running.sweep import Surroundings, Sweep

        if options.on != "slurm":
            resolve_device(options.device)
        writable(out)
        command = ["isogon", "sweep", options.plan]
        command += ["--scale", options.scale] if options.scale else []
        command += ["--shards", str(options.shards)] if options.shards else []
        command += ["--data-root", options.data_root] if options.data_root else []
        command += [] if context.checked() else ["--no-check"]
        held = Sweep.create(out, found, command=shlex.join(command))
        around = Surroundings(
            device=options.device,
            batch_size=options.batch_size,
            data_root=str(context.data_root().resolve()),
            cache_root=str(context.cache_root().resolve()),
            download=options.download,
            check=context.checked(),
        )
        names = ("workers", "minutes", "cpus", "gpus", "memory_gb", "partition", "parallel")
        resources = executors.Resources(**{n: getattr(options, n) for n in names})

        def notify(state: JobState) -> None:
            if not options.quiet:
                tail = state.error or state.record or state.slurm
                console.say(f"  {state.state:<8}{state.id:<34}{tail}")

        if options.on == "slurm":
            slurm.check_slurm()
        answer = queue(held, asked=options.on == "slurm")
        alive, stopped = answer.jobs, None
        if options.retry and not answer.installed:
            alive = set()  # Slurm can never be asked here: the user says that it is to be done
        try:
            for id in freshness.reopen(held):
                notify(held.state(id))
            ids = held.missing(retry=options.retry, alive=alive)
            if options.on == "slurm" and answer.jobs is None:
                ids = []
            turns: dict[str, int] = {}
            while True:
                if ids:
                    executors.execute(
                        held,
                        ids,
                        on=options.on,
                        surroundings=around,
                        resources=resources,
                        notify=notify,
                    )
                ids = [] if options.on == "slurm" else _left(held, alive, options.quiet)
                ids = ids or ([] if options.on == "slurm" else _turns(held, turns))
                if not ids:
                    break
        except KeyboardInterrupt as stop:
            stopped = stop
        with stopping.finishing():
            if options.on == "slurm" and answer.jobs is not None:
                answer = slurm.queue()
                alive = answer.jobs
            code = _summary(held, alive, answer, options.on)
            if any(s.record for s in held.states(alive)):
                from isogon.survey.pages import sweep_report

                for path in sweep_report.write(held, alive=alive):
                    console.say(f"{'report ' if path.suffix == '.html' else 'figure '}  {path}")
        if stopped is not None:
            raise stopped
    return code


def queue(held: Sweep, *, asked: bool = False) -> Queue:
    """What Slurm holds; it is asked only where it was given anything, or is about to be."""
    from isogon.survey.running import slurm
    from isogon.survey.running.states import waits

    needed = asked or any(waits(held.state(id)) for id in held.jobs)
    return slurm.queue() if needed else slurm.Queue(set())


def _left(held: Sweep, alive: set[str] | None, quiet: bool) -> list[str]:
    """Jobs whose owners, on other machines, turn out to be gone."""
    from isogon.cli import console
    from isogon.survey.running import claims

    unsure = held.unsure(alive)
    if not unsure:
        return []
    if not quiet:
        what = f"{console.counted(len(unsure), 'job')} in the hands of another machine"
        console.say(f"{what}: watching their heartbeats, at most {claims.STALE:.0f} s")
    held.watch(alive, unsure)
    return [s.id for s in held.states(alive, unsure) if s.state == "died"]


def _turns(held: Sweep, begun: dict[str, int]) -> list[str]:
    """Shares that are to take another turn, as far as their last one led to anything."""
    ids = [id for id in held.turns() if held.state(id).attempts > begun.get(id, -1)]
    begun |= {id: held.state(id).attempts for id in ids}
    return ids


def status(words: list[str]) -> int:
    """`isogon status DIR`: counts, failures with their logs."""
    from isogon.cli import console

    parser = Parser(
        "status",
        "How far a sweep is: counts by state, failures with their logs.\n"
        "Exit code 1 where a job has failed or died. The last line says what to do next.",
    )
    parser.positional("directory", "the folder of a sweep")
    parser.flag("all", "list every job")
    parser.commons(out=None, skip=OFFLINE)
    options = parser.parse(words)
    from isogon.survey.running.sweep import Sweep

    held = Sweep.read(options.directory)
    answer = queue(held)
    alive = answer.jobs
    if options.all:
        rows = []
        for state in held.states(alive):
            end = state.ended if state.ended >= state.started else time.time()
            spent = f"{end - state.started:8.1f} s" if state.started else " " * 10
            rows.append((state.id, f"{state.state:<8}{spent}  {held.jobs[state.id].command()}"))
        console.listing(rows)
    return _summary(held, alive, answer)


def _summary(held: Sweep, alive: set[str] | None, answer: Queue, on: str | None = None) -> int:
    """Counts, and each failure with what to do.

    Args:
        held: The sweep.
        alive: Slurm jobs that wait or run; None where that is not known.
        answer: Of Slurm.
        on: Where a sweep ran; None where it was only looked at.

    Returns:
        0 where all jobs are done; for Slurm, and where the sweep is only looked at, also where
        the others wait or run.
    """
    from isogon.cli import console
    from isogon.survey.running.states import count_states, waits

    states = held.states(alive)
    counts = count_states(states)
    bad = [s for s in states if s.state in ("failed", "died")]
    for state in bad:
        log = held.log(state.id)
        if state.slurm and not log.is_file():
            logs = sorted((held.directory / "slurm").glob(f"{state.slurm}_*_log.err"))
            log = logs[0] if logs else log
        console.say(f"{state.state}  {state.id}: {state.error}")
        console.say(f"        {held.jobs[state.id].command()}")
        if log.is_file():
            console.say(f"        log {log}")
    console.say(
        f"{console.counted(len(states), 'job')}: "
        + ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    )
    console.say(f"records  {held.records}")
    given = sum(waits(s) for s in states)
    if answer.problem and (given or on == "slurm"):
        told = (
            "nothing was submitted" if on == "slurm" else f"{given} jobs that Slurm was given stay"
        )
        fix = "run again when it answers" if answer.installed else "run where it is, or use --retry"
        console.say(f"what Slurm holds is not known ({answer.problem}): {told}; {fix}")
    if bad and on is not None:
        console.say("run the sweep again with --retry to repeat what failed")
    others = sum(s.state == "running" or waits(s) for s in states)
    here, whole = on in ("inline", "processes"), counts["done"] == len(states)
    if here and others:
        what = f"{others} of {len(states)} jobs are in other hands"
        console.say(f"{what}; run the sweep again when they have ended")
    if on is None:
        console.say(f"next     {_next(held, counts, waiting=given, answered=not answer.problem)}")
    unknown = on == "slurm" and bool(answer.problem)
    return 1 if bad or ((here or unknown) and not whole) else 0


def _next(held: Sweep, counts: dict[str, int], *, waiting: int, answered: bool) -> str:
    """What to do about a sweep that is in such a state."""
    command = f"{held.command} --out {shlex.quote(str(held.directory))}"
    if counts["failed"] or counts["died"]:
        return f"{command} --retry"
    if counts["running"] or (waiting and answered):
        return f"wait, then isogon status {shlex.quote(str(held.directory))}"
    if counts["queued"]:
        return command
    page = held.directory / "report.html"
    if not page.is_file():
        return f"isogon report {shlex.quote(str(held.directory))}"
    return f"open {page}"
