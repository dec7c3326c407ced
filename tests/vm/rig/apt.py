"""Debian packages, fetched and unpacked without installing anything and without root.

apt-get runs on a state of its own in the cache: its own sources, lists, archives, and an empty
list of installed packages, so that a download takes the whole closure of dependencies.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.vm.rig.errors import RigError
from tests.vm.rig.mirror import Mirror

# What the unpacked trees do without.
SKIP = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/info/")


class Apt:
    """A private apt for one Debian mirror."""

    def __init__(self, state: Path, mirror: Mirror, suites: tuple[str, ...]) -> None:
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise RigError(f"{tool} is missing: the guest rig needs a Debian or Ubuntu machine")
        self._state = state
        for sub in ("etc/preferences.d", "lists/partial", "archives/partial"):
            (state / sub).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        sources = mirror.sources(suites)
        self._sources = state / "etc/sources.list"
        if not self._sources.exists() or self._sources.read_text() != sources:
            self._sources.write_text(sources)
            (state / "updated").unlink(missing_ok=True)

    def update(self) -> None:
        """Fetches the package lists."""
        # By itself apt takes an unreachable mirror for a warning.
        self._apt("update", "-o", "APT::Update::Error-Mode=any")
        (self._state / "updated").touch()

    def fetch(self, into: Path, packages: tuple[str, ...], *, closure: bool) -> list[Path]:
        """Downloads `packages`, with all that they depend on if `closure`; gives the .deb files.

        apt keeps unfinished downloads apart and checks the digest of finished ones, so a call that
        follows an interrupted one goes on from there. Lists that name packages which the mirror has
        replaced since are fetched again, once.
        """
        (into / "partial").mkdir(parents=True, exist_ok=True)
        if not (self._state / "updated").exists():
            self.update()
        try:
            self._fetch(into, packages, closure=closure)
        except RigError:
            self.update()
            self._fetch(into, packages, closure=closure)
        return sorted(into.glob("*.deb"))

    def resolve(self, package: str, pattern: str) -> tuple[str, ...]:
        """The packages matching `pattern` that an installation of `package` would bring."""
        if not (self._state / "updated").exists():
            self.update()
        plan = self._apt("-s", "install", package)
        found = tuple(re.findall(rf"^Inst ({pattern})\s", plan, flags=re.MULTILINE))
        if not found:
            raise RigError(f"{package} brings no package like {pattern}: has the archive changed?")
        return found

    def _fetch(self, into: Path, packages: tuple[str, ...], *, closure: bool) -> None:
        if closure:
            self._apt("-y", "--download-only", "-o", f"Dir::Cache::archives={into}", "install", *packages)
        else:
            self._apt("download", *packages, cwd=into)

    def _apt(self, *args: str, cwd: Path | None = None) -> str:
        state = self._state
        options = {
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state,
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": state / "etc/preferences.d",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": getpass.getuser(),
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        command = ["apt-get", "-qq"]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        done = subprocess.run([*command, *args], cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
            reason = lines[0] if lines else (done.stderr.strip() or f"exit {done.returncode}")
            raise RigError(f"apt-get {' '.join(args[:1])}: {reason} (sources: {self._sources})")
        return done.stdout


def unpack(debs: list[Path], root: Path) -> None:
    """Unpacks packages into one tree with a merged /usr, as Debian has it."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with (
            subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as packed,
            tarfile.open(fileobj=packed.stdout, mode="r|") as archive,
        ):
            for member in archive:
                _extract(archive, member, root)
        if packed.returncode != 0:
            raise RigError(f"{deb.name} cannot be unpacked: remove the cache and set up again")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """One entry, without its owner: `root` belongs to whoever set it up. Device nodes are left out."""
    name = member.name.removeprefix("./")
    if name.startswith(SKIP):
        return
    path = root / name
    if member.isdir():
        # Must not replace a link of the merged /usr, so it is not made anew.
        path.mkdir(parents=True, exist_ok=True)
        return
    path.unlink(missing_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.hardlink_to(root / member.linkname.removeprefix("./"))
    elif (content := archive.extractfile(member)) is not None:
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(member.mode & 0o755 | 0o600)
