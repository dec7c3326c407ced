"""`nvmet-vdev run`: serves disks as one NVMe drive until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import socket as sockets_module
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import click

from nvmet_vdev import Subsystem, Target, identity, memlock, pidfile, sockets, vmm
from nvmet_vdev.cli import verbosity
from nvmet_vdev.cli.params import CPUS, DISK, SIZE
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import Spec, parse
from nvmet_vdev.notify import notify
from nvmet_vdev.opening import open_any
from nvmet_vdev.output import say, warn
from nvmet_vdev.signals import StopSignals

SHUTDOWN_SECONDS = 60.0
"""How long running commands and the final flush may take before the exit status says so."""


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
    doorbells: str,
    workers: int,
    iopoll: bool,
    fixed_buffers: bool,
    cpus: tuple[int, ...],
    wait: str,
    pid_path: str | None,
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
    path = _listening_path(fd) if fd is not None else None
    if fd is None:
        path = (
            sockets.check(Path(socket))
            if socket is not None
            else sockets.check(sockets.default_path(disks[0]))
        )
    elif socket is not None:
        raise UsageError("--socket and --fd name two sockets; give one of them")
    _check_create(disks, create)
    files = [disk for disk in disks if disk.native and not disk.memory]
    if iopoll and not files:
        kind = "memory" if disks[0].memory else "none"
        raise UsageError(f"--iopoll is for block devices and {disks[0]} is {kind}: leave --iopoll out")
    names = identity.derive(disks, path)

    with StopSignals() as signals, Target(workers=workers, cpus=cpus, wait=wait) as target:
        _let_plugins_stop(disks, signals)
        subsystem = target.add_subsystem(nqn=names.nqn, serial=serial if serial is not None else names.serial)
        with contextlib.ExitStack() as cleanup:
            _add_namespaces(
                subsystem,
                disks,
                names.uuids,
                create=create,
                read_only=read_only,
                block_size=int(block_size) if block_size is not None else None,
                iopoll=iopoll,
                fixed_buffers=fixed_buffers,
                signals=signals,
                cleanup=cleanup,
            )
            subsystem.listen(
                path if fd is None else None,
                fd=fd,
                queues=queues,
                queue_size=queue_size,
                doorbells=doorbells,
            )
            # All of it worked: the new images stay.
            cleanup.pop_all()
        if (shortage := memlock.shortage(len(files) * workers)) is not None:
            warn(shortage)
        with pidfile.written(pid_file):
            _announce(str(path))
            _serve(target, signals, terminate)
            notify("STOPPING=1")
            # From here on a second signal ends the process at once.
            signals.release()
            target.shutdown(SHUTDOWN_SECONDS)


def _check_create(disks: Sequence[Spec], create: int | None) -> None:
    """`--create` is for image files; beside one, others are welcome."""
    if create is not None and all(disk.path is None for disk in disks):
        raise UsageError(f"--create makes image files and {disks[0]} has its size: leave --create out")


def _listening_path(fd: int) -> Path:
    """The path that the inherited socket `fd` listens on."""
    try:
        with sockets_module.socket(fileno=os.dup(fd)) as inherited:
            name = inherited.getsockname()
            listens = inherited.getsockopt(sockets_module.SOL_SOCKET, sockets_module.SO_ACCEPTCONN)
            if inherited.family != sockets_module.AF_UNIX or not listens:
                raise UsageError(f"--fd {fd} is not a listening Unix stream socket; pass one that is")
    except OSError as error:
        raise UsageError(f"--fd {fd}: {error.strerror}; pass a listening Unix stream socket") from error
    return Path(name) if isinstance(name, str) and name else Path(f"/proc/self/fd/{fd}")


def _add_namespaces(
    subsystem: Subsystem,
    disks: Sequence[Spec],
    uuids: Sequence[UUID],
    *,
    create: int | None,
    read_only: bool,
    block_size: int | None,
    iopoll: bool,
    fixed_buffers: bool,
    signals: StopSignals,
    cleanup: contextlib.ExitStack,
) -> None:
    """Opens `disks` as NSID 1, 2, …; `cleanup` learns to remove the images that this made."""
    for disk, uuid in zip(disks, uuids, strict=True):
        image = disk.path
        new = create is not None and image is not None and not image.exists()
        with contextlib.nullcontext() if disk.native else signals.interrupting():
            opened = open_any(
                disk,
                create=create if new else None,
                read_only=read_only,
                block_size=block_size,
                iopoll=iopoll,
                fixed_buffers=fixed_buffers,
            )
        # Only now is it ours: had somebody else made it meanwhile, the lock would have refused it.
        if new and image is not None:
            cleanup.callback(image.unlink, missing_ok=True)
        subsystem.add_namespace(opened, read_only=read_only, uuid=uuid)


def _let_plugins_stop(disks: Sequence[Spec], signals: StopSignals) -> None:
    """nbdkit's plugins may end the server that they are in."""
    if any(disk.leaf.scheme == "nbdkit" for disk in disks):
        # Here and not above: others need no time for it.
        from nvmet_vdev import nbdkit

        nbdkit.stop_with(signals.stop)


def _announce(path: str) -> None:
    say(f"listening on {path}")
    notify("READY=1")
    path = str(Path(path).absolute())
    say(f"\nQEMU 10.1.1 or later:\n  {vmm.qemu(path)}")
    say(f"\nCloud Hypervisor:\n  {vmm.cloud_hypervisor(path)}")


def _serve(target: Target, signals: StopSignals, terminate: bool) -> None:
    """Sleeps until a stop signal, or with `terminate` until a client that attached has left."""
    while not signals.wait(target.fileno()):
        while (event := target.next_event(0)) is not None:
            if terminate and event.kind == "detached":
                return
