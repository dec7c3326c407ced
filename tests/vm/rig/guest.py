"""A Linux guest in QEMU (TCG), started once, given scripts, rebooted, killed."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.vm.rig import bootdisk, guest_stage, qemu, tools
from tests.vm.rig.agent import Agent, Result
from tests.vm.rig.errors import GuestError, RigError
from tests.vm.rig.guestline import CONSOLE, FAST
from tests.vm.rig.program import Program
from tests.vm.rig.qmp import system_reset

# Seconds after which something hangs, however busy the machine is; nothing waits for them to pass.
BOOT_LIMIT = 300.0
SCRIPT_LIMIT = 300.0
EXIT_LIMIT = 60.0


class Firmware(Enum):
    """What starts the guest. QBOOT loads the kernel from the host at once; the others boot from a drive."""

    QBOOT = "qboot"
    SEABIOS = "seabios"
    OVMF = "ovmf"


@dataclass(frozen=True)
class Rig:
    """What set-up prepared."""

    cache: Path
    qemu: Program

    @classmethod
    def find(cls, cache: Path) -> Self:
        """The rig in `cache`; an error that says what to do if it is not there."""
        program = qemu.find(cache)
        stages = (tools.stage(cache), guest_stage.stage(cache), bootdisk.stage(cache))
        if program is None or not all(stage.ready for stage in stages):
            raise RigError(f"QEMU or the guest is not prepared in {cache}: run `python -m tests.vm.setup`")
        return cls(cache, program)

    @property
    def boot_disk(self) -> Path:
        """An image that SeaBIOS and OVMF boot from; copy it before a guest may write to it."""
        return bootdisk.stage(self.cache).path / bootdisk.IMAGE


@dataclass(frozen=True)
class Machine:
    """The virtual machine around the drives."""

    firmware: Firmware = Firmware.QBOOT
    cpus: int = 2
    memory: str = "512M"
    # Guest memory that the target can map; without it no file descriptor reaches the target.
    shared_memory: bool = True
    fio: bool = False
    arguments: tuple[str, ...] = ()
    # More words for the kernel's command line; of QBOOT only, the others have theirs on the drive.
    kernel: str = ""


# Two guests of this size run side by side on two cores.
SMALL = Machine(cpus=1, memory="256M", fio=True)


class Guest:
    """One QEMU. As a context manager it is killed at the end, whatever state it is in.

    `devices` are QEMU arguments, one sequence for each drive. `notes` is asked for more to put into
    an error (what the target said).
    """

    def __init__(
        self,
        rig: Rig,
        devices: Sequence[Sequence[str]],
        machine: Machine | None = None,
        notes: Callable[[], str] | None = None,
    ) -> None:
        self._machine = machine or Machine()
        self._notes = notes
        self._stuck: str | None = None
        self._resources = ExitStack()
        self._directory = Path(
            self._resources.enter_context(tempfile.TemporaryDirectory(prefix="nvmet-guest-"))
        )
        try:
            self._start(rig, devices)
        except BaseException:
            self._resources.close()
            raise

    def _start(self, rig: Rig, devices: Sequence[Sequence[str]]) -> None:
        ours, theirs = socket.socketpair()
        self._agent = Agent(ours)
        self._resources.callback(self._agent.close)
        with theirs, (self._directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                self._command(rig, devices, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=rig.qemu.environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._resources.callback(self.kill)
        self.wait_ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    # --- scripts

    def run(self, script: str, *, check: bool = True, limit: float = SCRIPT_LIMIT) -> Result:
        """Runs a shell script (`set -eu`, the words of guest.sh known); with `check` its status must be 0."""
        if self._stuck is not None:
            raise GuestError(f"the guest is of no use since: {self._stuck}")
        try:
            result = self._agent.result(self._agent.send(script), limit)
        except (GuestError, OSError) as error:
            self._stuck = str(error).splitlines()[0]
            raise self._error(str(error)) from None
        if check and result.rc != 0:
            raise self._error(f"a script in the guest exited with {result.rc}:\n{result.out}")
        return result

    def start(self, script: str) -> None:
        """Runs a script in the background, to be cut off by a reset or a kill."""
        self.run(f"({script}) </dev/null >/dev/null 2>&1 &")

    # --- power

    def wait_ready(self, limit: float = BOOT_LIMIT) -> None:
        """Waits until the guest takes scripts."""
        try:
            self._agent.wait_ready(limit)
        except GuestError as error:
            raise self._error(str(error)) from None

    def reboot(self) -> None:
        """The guest shuts its drives down and restarts, in the same QEMU."""
        self._agent.send("sync; reboot -f")
        self.wait_ready()

    def reset(self) -> None:
        """The reset button: nobody shuts anything down."""
        system_reset(self._directory / "qmp")
        self.wait_ready()

    def power_off(self) -> None:
        """The guest shuts its drives down and QEMU exits."""
        self._agent.send("sync; poweroff -f")
        try:
            status = self._process.wait(EXIT_LIMIT)
        except subprocess.TimeoutExpired:
            raise self._error("QEMU did not exit after the guest's power-off") from None
        if status != 0:
            raise self._error(f"QEMU exited with {status}")

    def kill(self) -> None:
        """SIGKILL, as an operator or the kernel's out-of-memory killer would."""
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process.poll() is None

    # --- what was said

    @property
    def console(self) -> str:
        """The first serial port since the start."""
        return self._read("console")

    @property
    def stderr(self) -> str:
        """What QEMU said."""
        return self._read("stderr")

    def _read(self, name: str) -> str:
        with suppress(OSError):
            return (self._directory / name).read_text(errors="replace")
        return ""

    def _error(self, message: str) -> GuestError:
        parts = [message, f"--- QEMU (exit {self._process.poll()})\n{self.stderr}"]
        parts.append("--- console\n" + "\n".join(self.console.splitlines()[-40:]))
        if self._notes is not None:
            parts.append(self._notes())
        return GuestError("\n".join(parts))

    # --- QEMU's command line

    def _command(self, rig: Rig, devices: Sequence[Sequence[str]], agent_fd: int) -> list[str]:
        machine = self._machine
        command = [*rig.qemu.argv, "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-accel", "tcg,thread=multi", "-cpu", "max"]
        command += ["-smp", str(machine.cpus), "-m", machine.memory]
        if machine.shared_memory:
            command += ["-object", f"memory-backend-memfd,id=ram,size={machine.memory},share=on"]
        command += ["-machine", "q35,memory-backend=ram" if machine.shared_memory else "q35"]
        command += ["-chardev", f"file,id=console,path={self._directory / 'console'}"]
        command += ["-serial", "chardev:console"]
        command += ["-chardev", f"socket,id=agent,fd={agent_fd}", "-serial", "chardev:agent"]
        command += ["-qmp", f"unix:{self._directory / 'qmp'},server=on,wait=off"]
        command += self._firmware(rig)
        for device in devices:
            command += device
        return [*command, *machine.arguments]

    def _firmware(self, rig: Rig) -> list[str]:
        match self._machine.firmware:
            case Firmware.SEABIOS:
                return []
            case Firmware.OVMF:
                variables = self._directory / "vars.fd"
                tree = tools.stage(rig.cache).path
                variables.write_bytes((tree / tools.OVMF_VARS).read_bytes())
                code = f"if=pflash,format=raw,readonly=on,file={tree / tools.OVMF_CODE}"
                return ["-drive", code, "-drive", f"if=pflash,format=raw,file={variables}"]
            case Firmware.QBOOT:
                guest = guest_stage.stage(rig.cache).path
                archives = [guest_stage.SMALL, guest_stage.BASE]
                archives += [guest_stage.FIO] if self._machine.fio else []
                initrd = self._directory / "initrd"
                initrd.write_bytes(b"".join((guest / name).read_bytes() for name in archives))
                kernel = ["-kernel", str(guest / guest_stage.VMLINUX), "-initrd", str(initrd)]
                return [
                    "-bios",
                    "qboot.rom",
                    *kernel,
                    "-append",
                    f"{CONSOLE} {FAST} {self._machine.kernel}".rstrip(),
                ]
