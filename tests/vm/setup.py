"""`python -m tests.vm.setup`: prepares QEMU and the guest in the cache. Run again, it does what is left."""

from __future__ import annotations

import functools
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.vm.rig import bootdisk, guest_stage, qemu, tools
from tests.vm.rig.apt import Apt
from tests.vm.rig.cache import Stage, cache_dir, locked
from tests.vm.rig.errors import RigError
from tests.vm.rig.mirror import find_mirror

SUITES = ("trixie", qemu.BACKPORTS)


def prepare(cache: Path, say: Callable[[str], None]) -> None:
    """Makes every stage that is missing or out of date."""
    if platform.machine() != "x86_64":
        raise RigError(f"the guest rig needs an x86-64 machine, and this is {platform.machine()}")
    with locked(cache):
        _prepare(cache, say)


def _prepare(cache: Path, say: Callable[[str], None]) -> None:
    state = cache / "apt"
    tree, guest = tools.stage(cache), guest_stage.stage(cache)

    @functools.cache
    def apt() -> Apt:
        """Made when a stage asks for it: a finished cache needs no mirror."""
        return Apt(state, find_mirror(), SUITES)

    def archives(stage: Stage) -> Path:
        return state / "archives" / stage.path.name

    def make_qemu(stage: Stage) -> None:
        stage.build(lambda into: qemu.make(apt(), archives(stage), into))

    def make_tools(stage: Stage) -> None:
        stage.build(lambda into: tools.make(apt(), archives(stage), into))

    def make_guest(stage: Stage) -> None:
        stage.build(lambda into: guest_stage.make(apt(), archives(stage), tree.path, into))

    def make_boot_disk(stage: Stage) -> None:
        stage.build(lambda into: bootdisk.make(tree.path, guest.path, into))

    plan = [
        ("tools", tree, make_tools),
        ("guest", guest, make_guest),
        ("boot disk", bootdisk.stage(cache), make_boot_disk),
    ]
    if qemu.system() is None:
        plan.insert(0, ("QEMU", qemu.stage(cache), make_qemu))
    missing = [step for step in plan if not step[1].ready]
    if missing:
        say(f"preparing {', '.join(name for name, _, _ in missing)} in {cache}")
    for name, stage, make in missing:
        started = time.monotonic()
        make(stage)
        shutil.rmtree(archives(stage), ignore_errors=True)
        say(f"{name} is ready ({time.monotonic() - started:.0f} s)")


def main() -> int:
    """Prepares the cache; what stops it is one line."""
    cache = cache_dir()
    try:
        prepare(cache, lambda line: print(f"vm: {line}", flush=True))
    except RigError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"vm: cannot prepare {cache}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vm: interrupted; run it again to go on", file=sys.stderr)
        return 130
    program = qemu.find(cache)
    version = ".".join(str(part) for part in qemu.version(program)) if program else "none"
    print(f"vm: ready in {cache} (QEMU {version})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
