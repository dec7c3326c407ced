"""The cache directory: finished stages, and the rule that a half-made one is never taken for a whole.

A stage is a directory built under another name and renamed when it is complete. Its stamp is a
digest of what it was made from, so that a change of the recipe makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
STAMP = ".stamp"


def cache_dir() -> Path:
    """`NVMET_VM_CACHE`, or `.cache/vm` in the checkout."""
    return Path(os.environ.get("NVMET_VM_CACHE") or CHECKOUT / ".cache" / "vm").absolute()


def digest(*parts: str | Path) -> str:
    """A stamp over texts and over the contents of files (the recipe's own source)."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()


@dataclass(frozen=True)
class Stage:
    """One directory of the cache that is either complete or not there."""

    path: Path
    stamp: str

    @property
    def ready(self) -> bool:
        try:
            return (self.path / STAMP).read_text() == self.stamp
        except OSError:
            return False

    def build(self, make: Callable[[Path], None]) -> None:
        """Runs `make` on an empty directory, which becomes this stage when it returns."""
        partial = self.path.with_name(self.path.name + ".partial")
        for old in (partial, self.path):
            if old.exists():
                shutil.rmtree(old)
        partial.mkdir(parents=True)
        make(partial)
        (partial / STAMP).write_text(self.stamp)
        partial.rename(self.path)


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One set-up at a time; the lock goes with the process, so a killed one leaves nothing behind."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
