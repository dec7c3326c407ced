"""`nvmet-vdev run`: serves disks as one NVMe drive until it is told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from nvmet_vdev import ConfigError, identity, pidfile, sockets
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import CPUS, DISK, SIZE
from nvmet_vdev.cli.serving import Service, listening_path
from nvmet_vdev.config.model import Config, Namespace, Port, Subsystem, TargetSettings
from nvmet_vdev.config.problems import Problem
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import Spec, parse


@click.command(
    "run",
    short_help="Serve disks as one NVMe drive.",
    epilog="""\b
Examples:
  nvmet-vdev run disk.img                       a drive of an image that exists
  nvmet-vdev run disk.img --create 10G          makes the image first, sparse
  nvmet-vdev run ram:1G --socket /tmp/ram.sock  a drive of memory
  nvmet-vdev run /dev/sdb data.img              two namespaces, NSID 1 and 2
  nvmet-vdev run golden.img --read-only --terminate
  nvmet-vdev run python:./drive.py:Drive?size=1G
  nvmet-vdev run disk.img --cpus 0 --wait poll  fast, and all of CPU 0 while in use

Without --socket it is $XDG_RUNTIME_DIR/nvmet-vdev/NAME.sock, NAME being that of the
first disk (for root /run/nvmet-vdev/, without a runtime directory /tmp/nvmet-vdev-UID/).
Serial number, NQN and UUIDs stay the same from start to start of the same disks.
""",
)
@click.argument("words", metavar="DISK...", type=DISK, nargs=-1, required=True)
@click.option("--socket", metavar="PATH", help="Unix socket to listen on; mode 0600.")
@click.option(
    "--fd", metavar="N", type=click.IntRange(0), help="Use this socket, already listening, instead."
)
@click.option("--read-only", is_flag=True, help="The guest may not write.")
@click.option("--create", metavar="SIZE", type=SIZE, help="Make image files that do not exist, this large.")
@click.option(
    "--block-size",
    type=click.Choice(["512", "4096"]),
    help="Bytes per LBA: 512, or what a backend in Python says.",
)
@click.option("--serial", metavar="S", help="Serial number, up to 20 ASCII characters.")
@click.option(
    "--queues", metavar="N", type=click.IntRange(1, 511), default=64, show_default=True, help="I/O queues."
)
@click.option(
    "--queue-size",
    metavar="N",
    type=click.IntRange(2, 65536),
    default=1024,
    show_default=True,
    help="Entries per I/O queue.",
)
@click.option(
    "--doorbells",
    type=click.Choice(["auto", "trapped", "mapped"]),
    default="auto",
    show_default=True,
    help="How the guest rings. trapped: by message, rarely when it has shadow doorbells (Linux); an idle "
    "drive sleeps. mapped: in a shared page, which is polled; for guests without shadow doorbells. "
    "auto: trapped, or mapped for a client that cannot do without (SPDK).",
)
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Worker threads; the queues are spread over them.",
)
@click.option(
    "--cpus",
    metavar="LIST",
    type=CPUS,
    default=(),
    help="Pin the workers to these CPUs, one each, in turn when there are fewer: 0,2-3.",
)
@click.option(
    "--wait",
    type=click.Choice(["poll", "adaptive", "event"]),
    default="adaptive",
    show_default=True,
    help="What a worker does that has nothing to do. adaptive: looks again for a moment, then sleeps; an "
    "idle drive costs nothing. event: sleeps at once; the least CPU time, and a wake-up for every pause. "
    "poll: never sleeps while a client is attached; the shortest latency, and all of a CPU per worker.",
)
@click.option(
    "--iopoll",
    is_flag=True,
    help="Ask block devices with poll queues for results, instead of waiting for their interrupts.",
)
@click.option(
    "--fixed-buffers/--no-fixed-buffers",
    default=True,
    show_default=True,
    help="Keep guest memory that is much used pinned for direct I/O, where limit and client allow it.",
)
@click.option("--pidfile", "pid_path", metavar="F", help="Write the process id here, once ready.")
@click.option("--control", metavar="PATH", help="Listen there for `nvmet-vdev ctl`.")
@click.option("--terminate", is_flag=True, help="Exit when the client leaves.")
@verbosity.option
def command(
    words: tuple[str, ...],
    socket: str | None,
    fd: int | None,
    read_only: bool,
    create: int | None,
    block_size: str | None,
    serial: str | None,
    queues: int,
    queue_size: int,
    doorbells: Literal["auto", "trapped", "mapped"],
    workers: int,
    iopoll: bool,
    fixed_buffers: bool,
    cpus: tuple[int, ...],
    wait: Literal["poll", "adaptive", "event"],
    pid_path: str | None,
    control: str | None,
    terminate: bool,
) -> None:
    """Serve DISK... as one NVMe drive on a vfio-user socket.

    DISK is an image file, a block device, ram:SIZE, null:SIZE, or a backend in Python (see
    `nvmet-vdev backends`); several become NSID 1, 2, ... Sizes like 512M or 10G. Ready when it
    prints "listening on PATH". SIGINT or SIGTERM stop it cleanly: running commands end, data is
    flushed, the exit status is 0.
    """
    disks = [parse(word) for word in words]
    pid_file = Path(pid_path) if pid_path is not None else None
    if pid_file is not None:
        pidfile.check(pid_file)
    path = listening_path(fd) if fd is not None else None
    if path is None:
        path = sockets.check(Path(socket) if socket is not None else sockets.default_path(disks[0]))
    elif socket is not None:
        raise UsageError("--socket and --fd name two sockets; give one of them")
    _check_create(disks, create)
    if iopoll and all(not disk.native or disk.memory for disk in disks):
        kind = "memory" if disks[0].memory else "none"
        raise UsageError(f"--iopoll is for block devices and {disks[0]} is {kind}: leave --iopoll out")
    names = identity.derive(disks, path)
    subsystem = Subsystem(
        nqn=names.nqn,
        serial=serial if serial is not None else names.serial,
        namespaces=tuple(
            Namespace(
                nsid=nsid,
                backend=word,
                uuid=uuid,
                read_only=read_only,
                block_size=_BLOCK_SIZES[block_size],
                create=create,
                iopoll=iopoll,
                fixed_buffers=fixed_buffers,
            )
            for nsid, (word, uuid) in enumerate(zip(words, names.uuids, strict=True), start=1)
        ),
    )
    port = Port(
        portid=1,
        traddr=str(path),
        subsystem=names.nqn,
        queues=queues,
        queue_size=queue_size,
        doorbells=doorbells,
    )
    service = Service(
        Config(
            target=TargetSettings(workers=workers, cpus=cpus, wait=wait),
            subsystems=(subsystem,),
            ports=(port,),
        ),
        checked=True,
        sockets={str(path): fd} if fd is not None else {},
        pid_file=pid_file,
        control=Path(control) if control is not None else None,
        terminate=terminate,
    )
    try:
        service.run()
    except Problem as problem:
        # Who gave words has no key of a file to look at; disks and sockets tell by themselves which they are.
        key = problem.path[-1] if problem.path else 0
        named = isinstance(key, str) and key not in ("backend", "traddr")
        raise ConfigError(f"{key}: {problem.what}" if named else problem.what) from problem


_BLOCK_SIZES: dict[str | None, Literal[512, 4096] | None] = {None: None, "512": 512, "4096": 4096}


def _check_create(disks: Sequence[Spec], create: int | None) -> None:
    """`--create` is for image files; beside one, others are welcome."""
    if create is not None and all(disk.path is None for disk in disks):
        raise UsageError(f"--create makes image files and {disks[0]} has its size: leave --create out")
