"""Instructions that the device executes for one command, counted by callgrind.

The way from the doorbell to the completion of a 4 KiB Read on a null namespace, by
`benches/instructions.rs`, with the guest's part left out. Two runs of different length: what their
difference holds is the steady state, and set-up cancels out. The counts are the same in every run
of one build on one machine. They vary a little between compilers, so `--check` has ceilings that
leave room.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The device's part of the program: everything below the worker's turn.
DEVICE = "nvmet_benches::local::Local::turn"
# Batches of the two runs.
BATCHES = (64, 192)


@dataclass(frozen=True)
class Case:
    """One figure: its name, what to run, and the most instructions a command that are accepted."""

    name: str
    depth: int
    queues: int
    doorbells: str
    ceiling: int


# A ceiling is about one and a half times what was counted when it was set: it catches what goes
# wrong by a mistake, not what costs ten instructions for a good reason.
CASES = (
    Case("qd1", 1, 1, "mapped", 2300),
    Case("qd32", 32, 1, "mapped", 780),
    Case("qd128", 128, 1, "mapped", 760),
    Case("qd1 shadow", 1, 1, "shadow", 2200),
    Case("qd32 shadow", 32, 1, "shadow", 780),
    Case("qd1 of 511 queues", 1, 511, "mapped", 2500),
    Case("qd1 shadow of 511 queues", 1, 511, "shadow", 2300),
)


def build() -> Path:
    """The program to count in."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "nvmet-benches"]
    command += ["--example", "instructions", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("instructions.py: the program to count in cannot be built: see above")
    artifacts = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return Path(next(a["executable"] for a in artifacts if a.get("executable")))


def count(program: Path, case: Case, batches: int) -> int:
    """Instructions of the device for so many batches."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["valgrind", "--tool=callgrind", f"--toggle-collect={DEVICE}"]
        command += [f"--callgrind-out-file={directory}/out", str(program)]
        command += [str(case.depth), str(batches), str(case.queues), case.doorbells]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        out = Path(directory, "out")
        text = out.read_text() if done.returncode == 0 and out.exists() else ""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None or int(found[1]) == 0:
        sys.exit(f"instructions.py: callgrind counted nothing in {DEVICE}: {done.stderr.strip()}")
    return int(found[1])


def per_command(program: Path, case: Case) -> float:
    """Instructions of one command in the steady state."""
    few, many = (count(program, case, batches) for batches in BATCHES)
    return (many - few) / ((BATCHES[1] - BATCHES[0]) * case.depth)


def count_all(program: Path) -> dict[Case, float]:
    """All figures, one case a processor at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = pool.map(lambda case: per_command(program, case), CASES)
        return dict(zip(CASES, counted, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail above a ceiling, else be brief")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        note = "instructions.py: valgrind is not installed: not checked"
        print(json.dumps({"instructions": None}) if options.output == "json" else note)
        return
    program = build()
    counted = count_all(program)
    if options.output == "json":
        figures = {case.name: round(value, 1) for case, value in counted.items()}
        print(json.dumps({"instructions": figures}, indent=2))
    elif not options.check:
        print("instructions a command, null namespace:")
        for case, value in counted.items():
            print(f"  {case.name:26} {value:8.0f}  (ceiling {case.ceiling})")
    above = [case for case, value in counted.items() if value > case.ceiling]
    if options.check and above:
        texts = (f"{case.name}: {counted[case]:.0f} of {case.ceiling}" for case in above)
        sys.exit(
            "instructions.py: a command takes more instructions than the ceiling in "
            f"benches/instructions.py ({'; '.join(texts)})"
        )


if __name__ == "__main__":
    main()
