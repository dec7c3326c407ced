"""`nvmet-vdev check-backend`: whether a backend does what it must."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import click

from nvmet_vdev import _nvmet, checking
from nvmet_vdev.checking import Check, Subject
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import DISK, output_option
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import Spec, parse
from nvmet_vdev.output import Progress, say, table
from nvmet_vdev.spec import open_backend, open_storage

REFRESH_SECONDS = 0.25
_WORDS = {"passed": "ok", "skipped": "skip", "failed": "FAIL"}


@click.command(
    "check-backend",
    short_help="Check that a backend does what it must.",
    epilog="""\b
Examples:
  nvmet-vdev check-backend ram:64M
  nvmet-vdev check-backend python:./drive.py:Drive?size=64M --overwrite
  nvmet-vdev check-backend golden.img --read-only
  nvmet-vdev check-backend scratch.img --overwrite --seed 7 --output json

What is on the disk is lost, except with --read-only.
""",
)
@click.argument("word", metavar="DISK", type=DISK)
@click.option("--overwrite", is_flag=True, help="What is on the disk may be lost.")
@click.option("--read-only", is_flag=True, help="Check reading alone.")
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, (1 << 64) - 1),
    default=1,
    show_default=True,
    help="Where the random operations start: the same again.",
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(0, (1 << 32) - 1),
    default=60,
    show_default=True,
    help="Batches of random operations.",
)
@click.option(
    "--depth",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    help="Operations in flight.",
)
@output_option
@verbosity.option
@click.pass_context
def command(
    ctx: click.Context,
    word: str,
    overwrite: bool,
    read_only: bool,
    seed: int,
    rounds: int,
    depth: int,
    output: str,
) -> None:
    """Check that DISK does what a drive must, and say what fails.

    First the methods of a backend in Python are called one by one, then the target's own
    conformance suite drives it. Exit status 1 if something fails. To repeat a failure, give the
    same --seed, --rounds and --depth.
    """
    spec = parse(word)
    if not (overwrite or read_only) and spec.native and not spec.memory:
        raise _refusal(spec)
    with Progress() as line:
        checks: list[Check] = []
        if not spec.native:
            checks = _methods(spec, read_only, overwrite or spec.content.memory, line)
        if any(check.outcome == "failed" for check in checks):
            report = _report(
                str(spec), [*checks, Check("conformance suite", "skipped", "correct the above first")]
            )
        else:
            report = _suite(spec, checks, line, read_only=read_only, seed=seed, rounds=rounds, depth=depth)
    say(json.dumps(report, indent=2) if output == "json" else _text(report))
    if not report["passed"]:
        ctx.exit(1)


def _refusal(spec: Spec) -> UsageError:
    return UsageError(
        f"{spec}: the check overwrites what is on it; add --overwrite if that may be lost, "
        "or --read-only to check reading alone"
    )


def _methods(spec: Spec, read_only: bool, may_overwrite: bool, line: Progress) -> list[Check]:
    """Calls the methods of the backend, one check after the other."""
    subject = Subject(open_backend(spec, read_only=read_only), read_only=read_only)
    # Asked before it is opened, which may make a file, and again when it may have learned that it can.
    if not subject.read_only and not may_overwrite:
        raise _refusal(spec)
    checks = [subject.check("open succeeds", checking.opens)]
    if checks[0].outcome == "failed":
        return checks
    refused = not subject.read_only and not may_overwrite
    for name, function in () if refused else checking.CHECKS:
        line.show(name)
        checks.append(subject.check(name, function))
        if function in checking.ESSENTIAL and checks[-1].outcome == "failed":
            break
    checks.append(subject.check("close succeeds", checking.closes))
    subject.finish()
    if refused:
        raise _refusal(spec)
    return checks


def _suite(
    spec: Spec, checks: list[Check], line: Progress, *, read_only: bool, seed: int, rounds: int, depth: int
) -> dict[str, Any]:
    """Runs the conformance suite on a backend made anew; an interrupt does not wait for it."""
    storage, _ = open_storage(spec, read_only=read_only)
    results: list[str] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(_nvmet.check_storage(storage, seed=seed, rounds=rounds, depth=depth))
        except BaseException as error:
            failures.append(error)

    started = time.monotonic()
    thread = threading.Thread(target=run, daemon=True, name="nvmet-suite")
    thread.start()
    while thread.is_alive():
        thread.join(REFRESH_SECONDS)
        line.show(f"conformance suite, {time.monotonic() - started:.0f} s")
    if failures:
        raise failures[0]
    found = json.loads(results[0])
    return _report(found["backend"], [*checks, *(Check(**check) for check in found["checks"])])


def _report(backend: str, checks: list[Check]) -> dict[str, Any]:
    return {
        "backend": backend,
        "passed": all(check.outcome != "failed" for check in checks),
        "checks": [vars(check) for check in checks],
    }


def _text(report: dict[str, Any]) -> str:
    checks = report["checks"]
    rows = [[_WORDS[one["outcome"]], one["name"], one["why"] or ""] for one in checks]
    counts = {word: sum(one["outcome"] == outcome for one in checks) for outcome, word in _WORDS.items()}
    summary = f"{counts['ok']} ok, {counts['skip']} skipped, {counts['FAIL']} failed"
    return f"{report['backend']}\n\n{table(['result', 'check', 'why'], rows)}\n\n{summary}"
