"""A message becomes calls of the manager, and what these return or raise becomes an answer.

May know methods and the manager by its methods' names; must not know sockets or threads. Runs in any thread.
"""

from __future__ import annotations

import functools
import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET

from nvmet_vdev._nvmet import ConfigError, NvmetError, __version__
from nvmet_vdev.config.model import Config
from nvmet_vdev.config.toml import tree_of
from nvmet_vdev.control import protocol
from nvmet_vdev.control.method import Lane, Method
from nvmet_vdev.control.methods import METHODS
from nvmet_vdev.control.protocol import Fault, Message, Refused, Request
from nvmet_vdev.errors import UsageError, one_line

log = logging.getLogger("nvmet_vdev.control")

PROTOCOL = 1
"""Goes up when a client of before would misunderstand something; new methods and parameters do not count."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent, if anything, and whether the target is to end after that."""

    data: bytes | None
    shutdown: bool = False


class Dispatcher:
    """Of one target.

    `manager` has the methods that are named in `METHODS`; `config_path` is where `config.save` writes by
    default; an answer that is larger than `largest` bytes becomes an error.
    """

    def __init__(self, manager: object, *, config_path: Path | None = None, largest: int = 16 << 20) -> None:
        self._manager = manager
        self._config_path = config_path
        self._largest = largest
        self._own: dict[str, Callable[[], Any]] = {
            "version": _version,
            "rpc.methods": _methods,
            "shutdown": lambda: None,
        }

    @staticmethod
    def lane(message: Message) -> Lane:
        """Who is to run `message`."""
        methods = (METHODS.get(item.method) for item in message.items if isinstance(item, Request))
        return max((method.lane for method in methods if method is not None), default=Lane.HERE)

    def run(self, message: Message) -> Answer:
        """Carries `message` out. Never raises; takes as long as the manager does."""
        answers: list[bytes] = []
        shutdown = False
        left = self._largest
        for item in message.items:
            number, result = self._item(item)
            shutdown |= isinstance(item, Request) and item.method == "shutdown" and result is None
            if number is UNSET:
                continue
            if isinstance(result, Fault):
                data = protocol.refusal(number, result)
            else:
                data = self._encode(number, result)
                if len(data) > left:
                    text = f"the answer has {len(data)} bytes, more than may be sent; ask for less"
                    data = protocol.refusal(number, Fault("limit", text))
            left -= len(data)
            answers.append(data)
        if not answers:
            return Answer(None, shutdown)
        return Answer((protocol.batch(answers) if message.batch else answers[0]) + b"\n", shutdown)

    def _item(self, item: Request | Refused) -> tuple[Any, Any]:
        if isinstance(item, Refused):
            return item.id, item.fault
        try:
            return item.id, self._call(item)
        except Fault as fault:
            return item.id, fault

    def _call(self, request: Request) -> Any:
        method = METHODS.get(request.method)
        if method is None:
            text = f"there is no method {protocol.clip(request.method, 60)!r}; rpc.methods lists them"
            raise Fault("method", text)
        arguments = method.check(request.params)
        try:
            return self._perform(method, arguments)
        except (ConfigError, UsageError) as error:
            raise Fault("config", str(error)) from None
        except (NvmetError, OSError) as error:
            raise Fault("device", str(error)) from None
        # A panic in Rust arrives as a BaseException. Whatever it is, the target goes on.
        except BaseException as error:
            raise _bug(method.name, error) from None

    def _perform(self, method: Method, arguments: dict[str, Any]) -> Any:
        if (own := self._own.get(method.name)) is not None:
            return own()
        if method.name == "config.save" and "path" not in arguments:
            if self._config_path is None:
                raise ConfigError(
                    "config.save: the target was started without a file, or with one that has more than it "
                    "serves; say a path"
                )
            arguments["path"] = str(self._config_path)
        result = getattr(self._manager, method.call)(**arguments)
        # As a file has it: what has its default value is left out.
        return tree_of(result) if isinstance(result, Config) else result

    @staticmethod
    def _encode(number: Any, result: Any) -> bytes:
        try:
            return protocol.answer(number, result)
        except Exception as error:
            return protocol.refusal(number, _bug("the answer", error))


@functools.cache
def _methods() -> list[dict[str, Any]]:
    # Once: it takes its time, and is asked in the thread of the sockets.
    return [method.describe() for method in METHODS.values()]


def _version() -> dict[str, Any]:
    return {"name": "nvmet-vdev", "version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}


def _bug(what: str, error: BaseException) -> Fault:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = f"{what}: {type(error).__name__}: {one_line(str(error))}{place}"
    log.error("a bug of nvmet-vdev: %s", text)
    return Fault("internal", f"{text}; this is a bug, report it")
