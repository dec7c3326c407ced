"""Runs the Rust tests under ThreadSanitizer and AddressSanitizer, with the stable compiler.

The standard library of a stable compiler is not instrumented. `tests/sanitizers` makes up for that:
`mutex.c` shows ThreadSanitizer the part of std's Mutex that it cannot see, `tsan.supp` names what remains
and why it is no defect, and `race.rs` is a race that has to be found before anything else is believed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "sanitizers"
CRATES = {
    "thread": ["nvmet-dma", "nvmet-block", "nvmet-core", "nvmet-vfio-user"],
    "address": ["nvmet-dma", "nvmet-block"],
}
RUNTIME = {"thread": "tsan", "address": "asan"}
# The SIGBUS guard handles that signal, and its tests look at what becomes of those that are not for it.
OPTIONS = {
    "thread": f"handle_sigbus=0:history_size=7:suppressions={HERE / 'tsan.supp'}",
    "address": "handle_sigbus=0:detect_leaks=1",
}
# -Zsanitizer is for nightly compilers, and for stable ones that are told to be one.
ENVIRONMENT = {**os.environ, "RUSTC_BOOTSTRAP": "1"}


def output(*command: str | Path) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def missing(what: str) -> SystemExit:
    """The end, for want of something; in one line."""
    return SystemExit(f"sanitize: {what}")


def libraries(host: str, sanitizer: str) -> Path:
    """The compiler's libraries, among them the sanitizer's."""
    path = Path(output("rustc", "--print", "sysroot").strip()) / "lib" / "rustlib" / host / "lib"
    if not list(path.glob(f"librustc-*_rt.{RUNTIME[sanitizer]}.a")):
        raise missing(
            f"rustc has no {RUNTIME[sanitizer]} runtime for {host}; install Rust with rustup, on Linux"
        )
    return path


def flags(sanitizer: str, libs: Path, scratch: Path) -> list[str]:
    """What the compiler is told."""
    given = [f"-Zsanitizer={sanitizer}"]
    if "unsafe-allow-abi-mismatch" in output("rustc", "-C", "help"):
        given.append("-Cunsafe-allow-abi-mismatch=sanitizer")
    if sanitizer == "thread":
        symbols = "".join(output("nm", "-D", std) for std in libs.glob("libstd-*.so"))
        found = re.search(r"\b_R\w+5mutex5futex\w+14lock_contended\b", symbols)
        if found is None:
            raise missing("std's Mutex is not as mutex.c knows it; what it protects would look like races")
        shown = scratch / "mutex.o"
        name = f'-DLOCK_CONTENDED="{found[0]}"'
        subprocess.run(["cc", "-O1", "-c", name, HERE / "mutex.c", "-o", shown], check=True)
        given += [f"-Clink-arg=-Wl,--wrap={found[0]}", f"-Clink-arg={shown}"]
    return given


def expect_race(given: list[str], scratch: Path) -> None:
    """Stops unless the race of race.rs is reported."""
    race = scratch / "race"
    subprocess.run(
        ["rustc", "--edition", "2024", *given, HERE / "race.rs", "-o", race], check=True, env=ENVIRONMENT
    )
    run = subprocess.run([race], check=False, capture_output=True, text=True, env=ENVIRONMENT)
    if "ThreadSanitizer: data race" not in run.stderr:
        raise missing(f"ThreadSanitizer does not find the race of {HERE / 'race.rs'}:\n{run.stderr}")


def run(sanitizer: str, host: str) -> bool:
    """Runs the tests under one sanitizer; whether nothing was found."""
    libs = libraries(host, sanitizer)
    target = ROOT / "target" / RUNTIME[sanitizer]
    target.mkdir(parents=True, exist_ok=True)
    ENVIRONMENT[f"{RUNTIME[sanitizer].upper()}_OPTIONS"] = OPTIONS[sanitizer]
    given = flags(sanitizer, libs, target)
    if sanitizer == "thread":
        with tempfile.TemporaryDirectory() as scratch:
            expect_race(given, Path(scratch))
    environment = {
        **ENVIRONMENT,
        "CARGO_TARGET_DIR": str(target),
        "RUSTFLAGS": " ".join(given),
        "PROPTEST_CASES": os.environ.get("PROPTEST_CASES", "16"),
    }
    crates = [word for crate in CRATES[sanitizer] for word in ("-p", crate)]
    cargo = ["cargo", "test", "--locked", "--quiet", "--target", host, *crates]
    # One test at a time: libtest itself is not instrumented either.
    tests = ["--lib", "--tests", "--no-fail-fast", "--", "--test-threads=1"]
    start = time.monotonic()
    clean = subprocess.run([*cargo, *tests], check=False, cwd=ROOT, env=environment).returncode == 0
    seconds = time.monotonic() - start
    print(f"sanitize: {sanitizer}: {'clean' if clean else 'FAILED'} after {seconds:.0f} s", flush=True)
    return clean


def main() -> int:
    """Runs what is asked for, and says what was found."""
    parser = argparse.ArgumentParser(description="The Rust tests under sanitizers")
    parser.add_argument("sanitizer", nargs="*", default=list(CRATES), help="thread, address; else both")
    asked = parser.parse_args().sanitizer
    if unknown := set(asked) - set(CRATES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CRATES)}")
    for tool, package in {"cargo": "Rust with rustup", "cc": "gcc", "nm": "binutils"}.items():
        if shutil.which(tool) is None:
            raise missing(f"{tool} is missing; install {package}")
    host = next(line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:"))
    clean = [run(sanitizer, host) for sanitizer in asked]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
