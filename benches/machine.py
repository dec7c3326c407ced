"""What a run was made on: processor, memory, kernel, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def describe(disk: Path) -> dict[str, Any]:
    """The machine, what is installed on it, and the commit; `disk` is where image files lie."""
    return {
        "cpu": _first(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "disk": file_system(disk),
        "fio": _say("fio", "--version"),
        "nvmet_vdev": _first(ROOT / "Cargo.toml", r'^version\s*=\s*"([^"]+)"'),
        "rustc": _say("rustc", "--version"),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit, and `+` where files were changed since."""
    name = _say("git", "rev-parse", "--short", "HEAD")
    changed = _say("git", "status", "--porcelain", "--untracked-files=no", "--", "rust", "python", "benches")
    return f"{name}+" if name and changed else name


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, found = line.split()[:3]
        inside = place == "/" or f"{path.resolve()}/".startswith(f"{place}/")
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind


def _first(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, path.read_text(), re.MULTILINE) if path.exists() else None
    return found.group(1).strip() if found else None


def _say(*command: str) -> str | None:
    """What a program prints, None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
