"""Configurations in files: which format, read with what was skipped, written so that the old file stays until
the new one is whole.

May know formats by their names. Must not know keys.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nvmet_vdev import atomic
from nvmet_vdev._nvmet import ConfigError
from nvmet_vdev.config import nvmetcli, nvmetcli_dump, toml
from nvmet_vdev.config.checking import check
from nvmet_vdev.config.model import Config
from nvmet_vdev.config.normal import normal
from nvmet_vdev.config.problems import Problem, Where, written
from nvmet_vdev.errors import one_line

__all__ = ["Format", "Loaded", "dumps", "format_of", "load", "loads", "save"]

Format = Literal["json", "toml"]

MAX_BYTES = 64 << 20
"""Of a file; 1024 namespaces in each of 1024 subsystems are less."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration from a file."""

    config: Config
    notes: list[str] = field(default_factory=list)
    """What was skipped, and what is worth knowing, one line each."""
    partial: bool = False
    """Whether the file has more than that: something was skipped."""
    where: Where = field(default=written, compare=False, repr=False)
    """What the file calls a place of the configuration."""
    name: str = field(default="", compare=False)
    """What messages call the file."""

    def named(self, problem: Problem) -> ConfigError:
        """A problem that only showed when it was to be served, in the words of the file."""
        return problem.at(self.where, self.name)


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that the name of a file says."""
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return "json"
    if suffix == ".toml":
        return "toml"
    raise ConfigError(one_line(f"{os.fspath(path)}: its name does not say its format; use .toml or .json"))


def load(path: str | os.PathLike[str], *, strict: bool = False) -> Loaded:
    """The configuration in the file at `path`: TOML, or nvmetcli's JSON.

    What does not apply here is skipped, unless `strict`. Raises ConfigError, one line that names the file,
    the key and the value, if that cannot be served.
    """
    name = os.fspath(path)
    form = format_of(path)
    try:
        with open(path, "rb", opener=_not_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(one_line(f"{name}: is no file; name a file in TOML or JSON"))
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(one_line(f"{name}: {error.strerror}; name a file that can be read")) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(one_line(f"{name}: has more than {MAX_BYTES >> 20} MiB; name a configuration"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(one_line(f"{name}: is no UTF-8 at byte {error.start}; write it in UTF-8")) from None
    return loads(text, form, strict=strict, name=name)


def loads(text: str, form: Format, *, strict: bool = False, name: str = "") -> Loaded:
    """As `load`, of text in the format `form`; `name` is what messages call it."""
    document = nvmetcli.Document() if form == "json" else None
    where = document.where if document is not None else written
    try:
        config = normal(document.parse(text) if document is not None else toml.parse(text))
        notes = check(config, where)
    except Problem as problem:
        raise problem.at(where, name) from None
    start = f"{name}: " if name else ""
    skipped = [one_line(f"{start}{line}") for line in document.skipped] if document is not None else []
    if strict and skipped:
        raise ConfigError(f"{skipped[0]}; take it out, or leave --strict out")
    notes = [*(f"{line}, skipped" for line in skipped), *(one_line(f"{start}{one}") for one in notes)]
    return Loaded(config, notes, bool(skipped), where, name)


def dumps(config: Config, form: Format) -> str:
    """`config` as text in the format `form`; what is loaded from it is equal."""
    config = normal(config)
    return nvmetcli_dump.dump(config) if form == "json" else toml.dump(config)


def save(config: Config, path: str | os.PathLike[str]) -> None:
    """Writes `config` to the file at `path`, mode 0600, in the format that its suffix says.

    Whoever reads the file, whenever the power fails, finds the old content or the new one. Raises
    ConfigError.
    """
    form = format_of(path)
    try:
        atomic.write(Path(path), dumps(config, form).encode())
    except UnicodeEncodeError:
        raise ConfigError(one_line(f"{path}: a name is no UTF-8, and cannot be written; rename it")) from None
    except OSError as error:
        raise ConfigError(
            one_line(f"{path}: {error.strerror}; nothing was saved, choose another file")
        ) from error


def _not_waiting(path: str, flags: int) -> int:
    """Opens what may be a pipe that nobody ever writes to."""
    return os.open(path, flags | os.O_NONBLOCK)
