"""From a configuration to a target that serves until it is told to stop: what `run` and `serve` share.

May know the manager, signals, readiness, the control socket. Must not know options.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets_module
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nvmet_vdev import Target, memlock, pidfile, vmm
from nvmet_vdev.config.model import Config
from nvmet_vdev.errors import UsageError
from nvmet_vdev.grammar import Spec, parse
from nvmet_vdev.manager import Manager
from nvmet_vdev.manager.keeping import Keeping
from nvmet_vdev.notify import notify
from nvmet_vdev.output import say, warn
from nvmet_vdev.signals import StopSignals

__all__ = ["Service", "listening_path"]

SHUTDOWN_SECONDS = 60.0
"""How long running commands and the final flush may take before the exit status says so."""


@dataclass(frozen=True)
class Service:
    """What is to be served, and how."""

    config: Config
    checked: bool = False
    """Whether its parts are known to fit together."""
    sockets: Mapping[str, int] = field(default_factory=dict)
    """Paths of ports that are listened at already, and the descriptors."""
    state_dir: Path | None = None
    discard_state: bool = False
    pid_file: Path | None = None
    control: Path | None = None
    """Where the control socket is; None: there is none."""
    file: Path | None = None
    """Where the configuration came from, and is saved to by default."""
    terminate: bool = False
    """Whether it ends when a client leaves."""

    def run(self) -> None:
        """Serves until a signal, a client on the control socket, or a plugin says that it is to stop.

        Raises Problem for what cannot be served, with its place in the configuration.
        """
        settings = self.config.target
        with (
            StopSignals() as signals,
            Target(workers=settings.workers, cpus=settings.cpus, wait=settings.wait) as target,
        ):
            self._let_plugins_stop(signals)
            manager = Manager(target, state_dir=self.state_dir, discard_state=self.discard_state)
            with contextlib.ExitStack() as running:
                control, keeping = contextlib.ExitStack(), Keeping(manager)
                manager.apply(
                    self.config,
                    checked=self.checked,
                    guard=signals.interrupting,
                    sockets=self.sockets,
                    # What cannot be had of these leaves no new image behind either.
                    then=lambda: self._open(manager, signals, running, control, keeping),
                )
                disks = sum(1 for spec in self._specs() if spec.native and not spec.memory)
                if (shortage := memlock.shortage(disks * settings.workers)) is not None:
                    warn(shortage)
                self._announce()
                self._wait(target, signals, keeping)
                notify("STOPPING=1")
                # From here on a second signal ends the process at once.
                signals.release()
                control.close()
                target.shutdown(SHUTDOWN_SECONDS)

    def _open(
        self,
        manager: Manager,
        signals: StopSignals,
        running: contextlib.ExitStack,
        control: contextlib.ExitStack,
        keeping: Keeping,
    ) -> None:
        """What is there while it runs, and while it can be controlled."""
        running.enter_context(pidfile.written(self.pid_file))
        running.enter_context(control)
        control.enter_context(keeping)
        if self.control is not None:
            # Here and not above: others need no time for it.
            from nvmet_vdev.control.server import ControlServer

            server = ControlServer(manager, self.control, shutdown=signals.stop, config_path=self.file)
            control.enter_context(server)

    def _specs(self) -> list[Spec]:
        return [
            parse(namespace.backend)
            for subsystem in self.config.subsystems
            for namespace in subsystem.namespaces
        ]

    def _let_plugins_stop(self, signals: StopSignals) -> None:
        """nbdkit's plugins may end the server that they are in."""
        if self.control is not None or any(spec.leaf.scheme == "nbdkit" for spec in self._specs()):
            # Late, as above.
            from nvmet_vdev import nbdkit

            nbdkit.stop_with(signals.stop)

    def _announce(self) -> None:
        paths = [port.traddr for port in self.config.ports]
        for path in paths:
            say(f"listening on {path}")
        if self.control is not None:
            say(f"controlled on {self.control}")
        notify("READY=1")
        if len(paths) == 1:
            path = str(Path(paths[0]).absolute())
            say(f"\nQEMU 10.1.1 or later:\n  {vmm.qemu(path)}")
            say(f"\nCloud Hypervisor:\n  {vmm.cloud_hypervisor(path)}")

    def _wait(self, target: Target, signals: StopSignals, keeping: Keeping) -> None:
        """Sleeps until a stop signal, or with `terminate` until a client that attached has left."""
        while not signals.wait(target.fileno()):
            while (event := target.next_event(0)) is not None:
                keeping.soon()
                if self.terminate and event.kind == "detached":
                    return


def listening_path(fd: int) -> Path:
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
