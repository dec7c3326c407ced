"""The Rust side of nvmet-vdev."""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, final

__all__ = [
    "Bench",
    "ConfigError",
    "DeviceError",
    "NvmetError",
    "Storage",
    "Subsystem",
    "Target",
    "__version__",
    "check_storage",
    "identify",
    "init_logging",
    "open_disk",
    "parse_size",
]

__version__: str

class NvmetError(Exception): ...
class ConfigError(NvmetError): ...
class DeviceError(NvmetError): ...

@final
class Target:
    def __new__(
        cls,
        *,
        workers: int = 1,
        cpus: Sequence[int] = ...,
        wait: Literal["poll", "adaptive", "event"] | str = "adaptive",
    ) -> Self: ...
    def add_subsystem(
        self, *, serial: str, nqn: str | None = None, model: str = ..., firmware: str | None = None
    ) -> Subsystem: ...
    def listen(
        self,
        subsystem: Subsystem,
        *,
        socket: str | None = None,
        fd: int | None = None,
        queues: int = 64,
        queue_size: int = 1024,
        doorbells: Literal["auto", "trapped", "mapped"] | str = "auto",
    ) -> int: ...
    def fileno(self) -> int: ...
    def next_event(self) -> tuple[Literal["attached", "detached"], int] | None: ...
    def shutdown(self, timeout: float = 30.0) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

@final
class Subsystem:
    @property
    def nqn(self) -> str: ...
    def add_namespace(
        self,
        storage: Storage,
        *,
        nsid: int | None = None,
        block_size: int = 512,
        read_only: bool = False,
        uuid: bytes | None = None,
    ) -> int: ...

@final
class Storage:
    @property
    def size(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    def describe(self) -> str: ...

@final
class Bench:
    def __new__(
        cls,
        socket: str,
        *,
        rw: str = "randread",
        bs: int = 4096,
        iodepth: int = 32,
        numjobs: int = 1,
        runtime: float = 5.0,
        size: int | None = None,
        verify: bool = False,
        cpus: Sequence[int] = ...,
        doorbells: Literal["auto", "shadow", "mapped", "trapped"] | str = "auto",
        interrupts: bool = False,
        hold: float = 0.0,
    ) -> Self: ...
    def wait(self, timeout: float) -> bool: ...
    def ios(self) -> int: ...
    def goal(self) -> int: ...
    def cancel(self) -> None: ...
    def result(self) -> str: ...

def check_storage(storage: Storage, *, seed: int = 1, rounds: int = 60, depth: int = 32) -> str: ...
def identify(socket: str) -> str: ...
def init_logging(verbosity: int) -> None: ...
def open_disk(
    spec: str,
    *,
    block_size: int = 512,
    read_only: bool = False,
    create: int | None = None,
    iopoll: bool = False,
    fixed_buffers: bool = True,
) -> Storage: ...
def parse_size(text: str) -> int: ...
