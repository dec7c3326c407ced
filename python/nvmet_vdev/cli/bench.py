"""`nvmet-vdev bench`: load on a drive from a driver of our own, in fio's words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from nvmet_vdev import DeviceError, _nvmet
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import CPUS, SIZE, output_option
from nvmet_vdev.output import Progress, say
from nvmet_vdev.sizes import format_count, format_latency, format_size

REFRESH_SECONDS = 0.25


@click.command(
    "bench",
    short_help="Measure or verify a drive.",
    epilog="""\b
Examples:
  nvmet-vdev bench disk.sock
  nvmet-vdev bench disk.sock --rw randread --bs 4k --iodepth 1 --runtime 10
  nvmet-vdev bench disk.sock --rw read --bs 128k --numjobs 2 --cpus 2-3
  nvmet-vdev bench disk.sock --doorbells trapped --interrupts
  nvmet-vdev bench disk.sock --verify --size 1G
  nvmet-vdev bench disk.sock --output json > result.json

--verify, --rw write, randwrite and randrw overwrite what is on the drive.
""",
)
@click.argument("socket")
@click.option(
    "--rw",
    type=click.Choice(["randread", "randwrite", "read", "write", "randrw"]),
    default="randread",
    show_default=True,
    help="Access pattern.",
)
@click.option("--bs", metavar="SIZE", type=SIZE, default="4k", show_default=True, help="Bytes per command.")
@click.option(
    "--iodepth",
    metavar="N",
    type=click.IntRange(1, 65535),
    default=32,
    show_default=True,
    help="Commands in flight per job.",
)
@click.option(
    "--numjobs",
    metavar="N",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Jobs, each with a thread and a queue pair of its own.",
)
@click.option(
    "--runtime",
    metavar="SECONDS",
    type=click.FloatRange(0.01, 86400 * 30),
    default=5.0,
    show_default=True,
    help="How long.",
)
@click.option("--size", metavar="S", type=SIZE, help="Use the first S bytes of the drive only.")
@click.option("--verify", is_flag=True, help="Write a pattern that proves place and freshness, read it back.")
@click.option("--cpus", metavar="LIST", type=CPUS, default=(), help="Pin the jobs to these CPUs: 0,2-3.")
@click.option(
    "--doorbells",
    type=click.Choice(["auto", "shadow", "mapped", "trapped"]),
    default="auto",
    show_default=True,
    help="How to ring: shadow is trapped with Doorbell Buffer Config.",
)
@click.option("--interrupts", is_flag=True, help="Sleep until an interrupt instead of polling.")
@click.option(
    "--hold",
    metavar="SECONDS",
    type=click.FloatRange(0, 86400 * 30),
    default=0.0,
    show_default=True,
    help="Then stay attached without a command, as an idle guest.",
)
@output_option
@verbosity.option
def command(socket: str, output: str, **job: Any) -> None:
    """Measure the drive behind SOCKET: IOPS, bandwidth and latency.

    SOCKET may belong to any vfio-user NVMe server. The numbers are those of the device and of a
    lean driver beside it, without a guest in between.
    """
    report = measure(socket, **job)
    say(json.dumps(report, indent=2) if output == "json" else text(report))
    check(socket, report)


def check(socket: str, report: Mapping[str, Any]) -> None:
    """Fails if a verify run has found a wrong block."""
    verify = report["verify"]
    if verify and verify["mismatched"]:
        first = verify["mismatches"][0]
        raise DeviceError(
            f"{socket}: verify: {verify['mismatched']} of {verify['blocks']} blocks are wrong; the first is "
            f"LBA {first['lba']}: expected {first['expected']}, found {first['found']}"
        )


def measure(
    socket: str,
    *,
    rw: str = "randread",
    bs: int = 4096,
    iodepth: int = 32,
    numjobs: int = 1,
    runtime: float = 5.0,
    size: int | None = None,
    verify: bool = False,
    cpus: tuple[int, ...] = (),
    doorbells: str = "auto",
    interrupts: bool = False,
    hold: float = 0.0,
) -> dict[str, Any]:
    """Runs one job with a progress line and returns its report; an interrupt stops it early and cleanly."""
    load = _nvmet.Bench(
        socket,
        rw=rw,
        bs=bs,
        iodepth=iodepth,
        numjobs=numjobs,
        runtime=runtime,
        size=size,
        verify=verify,
        cpus=list(cpus),
        doorbells=doorbells,
        interrupts=interrupts,
        hold=hold,
    )
    try:
        with Progress() as line:
            _watch(load, line, bs, runtime, hold)
    except KeyboardInterrupt:
        load.cancel()
    report = json.loads(load.result())
    assert isinstance(report, dict)  # noqa: S101 - for the type checker
    return report


def _watch(load: _nvmet.Bench, line: Progress, bs: int, runtime: float, hold: float) -> None:
    started = before = time.monotonic()
    done = 0
    while not load.wait(REFRESH_SECONDS):
        now, ios = time.monotonic(), load.ios()
        rate = (ios - done) / (now - before)
        before, done = now, ios
        if rate == 0 and hold and now - started > runtime:
            line.show("attached, without a command")
            continue
        share = ios / load.goal() if load.goal() else (now - started) / runtime
        line.show(f"{min(share, 1):4.0%}  {format_count(rate)} IOPS  {format_size(rate * bs)}/s")


def text(report: Mapping[str, Any]) -> str:
    """A report as fio's readers expect it."""
    job, summary = report["config"], report["summary"]
    what = "verify" if job["verify"] else job["rw"]
    lines = [
        f"{what}: bs={format_size(job['bs'])}, iodepth={job['iodepth']}, numjobs={job['numjobs']}, "
        f"doorbells={report['doorbells']}, ran {summary['elapsed_s']:.2f} s"
    ]
    for direction in ("read", "write"):
        if summary[direction]["ios"]:
            lines += _direction(direction, summary[direction])
    if verify := report["verify"]:
        lines.append(
            f"  verify: {verify['blocks']} blocks written and read back, {verify['mismatched']} wrong"
        )
    return "\n".join(lines)


def _direction(name: str, one: Mapping[str, Any]) -> list[str]:
    latency = one["latency"]
    values = ", ".join(
        f"{label}={format_latency(latency[key] / 1000)}"
        for label, key in (
            ("mean", "mean_ns"),
            ("p50", "p50_ns"),
            ("p99", "p99_ns"),
            ("p99.9", "p99_9_ns"),
            ("max", "max_ns"),
        )
    )
    return [
        f"  {name:<5}: IOPS={format_count(one['iops'])}, BW={format_size(one['bytes_per_second'])}/s, "
        f"{format_count(one['ios'])} commands, {format_size(one['bytes'])}",
        f"    lat: {values}",
    ]
