"""Where Debian packages come from: the mirror that this machine's own apt uses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.vm.rig.errors import RigError

MIRROR_ENV = "NVMET_VM_MIRROR"
KEYRING_ENV = "NVMET_VM_KEYRING"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Mirror:
    """A Debian archive and the keyring that its signatures are checked with."""

    uri: str
    keyring: Path

    def sources(self, suites: tuple[str, ...]) -> str:
        """The text of a sources.list."""
        return "".join(f"deb [signed-by={self.keyring}] {self.uri} {suite} main\n" for suite in suites)


def find_mirror(etc: Path = Path("/etc/apt")) -> Mirror:
    """The mirror to use, from the environment or from the apt sources under `etc`."""
    uri = os.environ.get(MIRROR_ENV) or next(iter(debian_uris(etc)), None)
    if uri is None:
        raise RigError(
            f"no Debian mirror in this machine's apt sources: set {MIRROR_ENV} to the address of one "
            f"(it ends in /debian), and install debian-archive-keyring"
        )
    keyring = Path(os.environ.get(KEYRING_ENV) or KEYRING)
    if not keyring.is_file():
        raise RigError(
            f"Debian's keyring {keyring} is missing: install debian-archive-keyring, or set {KEYRING_ENV}"
        )
    return Mirror(uri.rstrip("/"), keyring)


def debian_uris(etc: Path) -> list[str]:
    """The addresses of Debian archives in an apt configuration, in its order."""
    found: list[str] = []
    for path in [*sorted(etc.glob("sources.list.d/*.sources"))]:
        found += _deb822(path.read_text(errors="replace"))
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        if path.is_file():
            found += _one_line(path.read_text(errors="replace"))
    return [uri for uri in found if uri.rstrip("/").endswith("/debian")]


def _deb822(text: str) -> list[str]:
    uris: list[str] = []
    text = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            name.lower(): re.sub(r"\s+", " ", value).strip()
            for name, value in re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)
        }
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            uris += fields.get("uris", "").split()
    return uris


def _one_line(text: str) -> list[str]:
    return re.findall(r"^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)", text, flags=re.MULTILINE)
