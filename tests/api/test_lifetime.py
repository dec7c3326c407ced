"""Targets at the end of the interpreter, in children of fork, and where Python itself is another one."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nvmet_vdev import ConfigError, Target, _nvmet
from tests.product import PATIENCE, environment


def python(code: str, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; a hang is a failure."""
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env=environment(cwd),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


SERVE = """
import os, sys, threading
from nvmet_vdev import Backend, ConfigError, Target

class Drive(Backend):
    size = 1 << 20
    def read(self, offset, buf): buf[:] = bytes(len(buf))
    def write(self, offset, buf, fua): pass
    def flush(self): print("flush", flush=True)
    def close(self): print("close", flush=True)

target = Target()
target.add_namespace("disk.img", create=1 << 20)
target.add_namespace(Drive())
controller = target.listen("a.sock")
"""


def test_the_end_of_the_interpreter_shuts_down_what_still_runs(tmp_path: Path) -> None:
    for end in ("", "sys.exit(3)", "raise SystemExit('words')", "1 // 0"):
        done = python(SERVE + end, tmp_path)
        assert done.stdout.split() == ["flush", "close"], (end, done)
        assert not (tmp_path / "a.sock").exists()
        assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(end, 1)
        assert "nvmet-vdev: error" not in done.stderr
        (tmp_path / "disk.img").unlink()


def test_a_target_in_a_cycle_or_a_global_or_another_thread_does_not_hold_the_end_up(tmp_path: Path) -> None:
    done = python(
        SERVE
        + """
target.itself = target
import builtins
builtins.kept = target, controller
waiting = threading.Thread(target=target.wait, daemon=True)
waiting.start()
""",
        tmp_path,
        "-X",
        "dev",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_backend_that_hangs_holds_the_end_up_no_longer_than_its_limit(tmp_path: Path) -> None:
    done = python(
        SERVE.replace('print("flush", flush=True)', "threading.Event().wait()")
        + """
from nvmet_vdev import lifetime
lifetime.LIMIT = 0.5
""",
        tmp_path,
    )
    assert done.returncode == 0
    assert done.stderr.startswith("nvmet-vdev: error: the shutdown did not finish within 0.5 s")
    assert done.stderr.count("\n") == 1


FORK = (
    SERVE
    + """
import gc, json, warnings
from nvmet_vdev import _nvmet, open_disk
loose = open_disk("loose.img", create=1 << 20)

def refused(call):
    try:
        call()
    except ConfigError as error:
        assert "child of fork()" in str(error) and "\\n" not in str(error), error
    else:
        raise AssertionError(call)

with warnings.catch_warnings():
    # Python 3.12 warns of forks where there are threads, which is right.
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
if pid == 0:
    warnings.simplefilter("error")
    namespace = target.namespaces[0]
    for call in (
        lambda: target.add_namespace("ram:1M"), lambda: target.listen("b.sock"), target.stats,
        target.shutdown, target.fileno, target.wait, target.next_event, lambda: namespace.size,
        lambda: namespace.resize(4096),
        namespace.remove, controller.close, lambda: controller.attached, lambda: loose.size,
        target.add_subsystem,
    ):
        refused(call)
    del target, namespace, controller, loose
    gc.collect()
    # One of its own works.
    with Target() as own:
        own.add_namespace("ram:2M")
        own.listen("b.sock")
        assert json.loads(_nvmet.identify("b.sock"))["namespaces"][0]["size"] == 2 << 20
    END
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
# Nothing of the parent's went with it: socket, locks, threads.
assert os.path.exists("a.sock")
assert [ns["size"] for ns in json.loads(_nvmet.identify("a.sock"))["namespaces"]] == [1 << 20] * 2
import subprocess
for disk in "disk.img", "loose.img":
    code = f"from nvmet_vdev import open_disk; open_disk({disk!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process uses it" in other.stderr, other.stderr
print("parent", flush=True)
"""
)


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)"])
def test_in_a_child_of_fork_handles_refuse_and_the_parent_goes_on(tmp_path: Path, end: str) -> None:
    done = python(FORK.replace("END", end), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = [word for word in done.stdout.split() if word != "flush"]
    assert words == ["parent", "close"], "the child has closed nothing of its parent's"


def test_a_child_of_multiprocessing_is_a_child_like_any_other(tmp_path: Path) -> None:
    done = python(
        SERVE
        + """
import multiprocessing
def child(answers):
    try:
        target.stats()
    except ConfigError as error:
        answers.put(str(error))
context = multiprocessing.get_context("fork")
answers = context.Queue()
process = context.Process(target=child, args=(answers,))
process.start()
print(answers.get(timeout=30).count("child of fork()"))
process.join()
print(process.exitcode, len(target.namespaces), os.path.exists("a.sock"))
""",
        tmp_path,
        "-W",
        "ignore::DeprecationWarning",
    )
    assert done.stdout.split() == ["1", "0", "2", "True", "flush", "close"], done
    assert done.returncode == 0


def test_subinterpreters_are_refused_clearly(tmp_path: Path) -> None:
    done = python(
        """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
number = interpreters.create()
code = '''
try:
    import nvmet_vdev
except ImportError as error:
    print("refused:", error, flush=True)
'''
getattr(interpreters, "exec", interpreters.run_string)(number, code)
interpreters.destroy(number)
import nvmet_vdev
with nvmet_vdev.Target() as target:
    target.add_namespace("ram:1M")
print("serves", flush=True)
""",
        tmp_path,
    )
    assert done.returncode == 0, done
    assert "refused: " in done.stdout
    assert "interpreter" in done.stdout
    assert done.stdout.splitlines()[-1] == "serves"


def test_an_import_alone_starts_nothing_and_is_quick(tmp_path: Path) -> None:
    code = """
import sys, nvmet_vdev, threading
assert threading.active_count() == 1
print(sorted(name for name in ("asyncio", "click", "numpy", "multiprocessing") if name in sys.modules))
"""
    assert python(code, tmp_path).stdout.strip() == "[]"


def test_another_process_takes_over_when_the_first_is_gone(tmp_path: Path) -> None:
    first = python(SERVE + "os.kill(os.getpid(), 9)", tmp_path)
    assert first.returncode == -9
    # The socket is stale and the file is free.
    with Target() as target:
        target.add_namespace(tmp_path / "disk.img")
        target.listen(tmp_path / "a.sock")
        assert len(json.loads(_nvmet.identify(str(tmp_path / "a.sock")))["namespaces"]) == 1
    with pytest.raises(ConfigError):
        target.stats()
