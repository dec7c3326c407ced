"""The end of a process that serves backends, and what it does with other interpreters and forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.product import PATIENCE, environment

PREPARE = """
import os, signal, sys, threading, time
from tests.bridge.backends import Async, Bare, Batches, Full, Hanging, lab, read
from nvmet_vdev import attach
from nvmet_vdev._nvmet import Target
from nvmet_vdev.bridge import open_storage, serve

class Says(Full):
    def close(self):
        print("closed", flush=True)

def listen(service, directory):
    target = Target()
    target.add_subsystem(serial="X").add_namespace(service.storage)
    target.listen(target.add_subsystem(serial="Y"), socket=directory + "/y")
    return target
"""


def child(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end. It does not hang, and has nothing to say of its end."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PREPARE + textwrap.dedent(code)],
        cwd=cwd,
        env={**environment(cwd), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize(
    "form", ["Says()", "Says(thread_safe=True)", "type('A', (Async,), {})()", "Batches()"]
)
def test_an_interpreter_ends_while_a_backend_serves(form: str, tmp_path: Path) -> None:
    done = child(
        f"""
        service = serve({form})
        target = Target()
        target.add_subsystem(serial="X").add_namespace(service.storage)
        sys.exit(7)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (7, "")
    if "Says" in form:
        assert done.stdout == "closed\n"


@pytest.mark.parametrize("form", ["plain", "safe", "async", "batch"])
def test_an_interpreter_ends_while_a_backend_hangs(form: str, tmp_path: Path) -> None:
    done = child(
        f"""
        import asyncio
        hangs = threading.Event()
        class Plain(Bare):
            def read(self, offset, buf):
                hangs.set()
                threading.Event().wait()
        class Coroutine(Bare):
            async def read(self, offset, buf):
                hangs.set()
                while True:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        pass
        class Batch(Plain):
            def submit(self, batch):
                self.read(0, b"")
        backend = dict(plain=Plain(), safe=Plain(thread_safe=True), batch=Batch())
        backend["async"] = Coroutine()
        service = serve(backend[{form!r}])
        target = Target()
        subsystem = target.add_subsystem(serial="X")
        subsystem.add_namespace(service.storage)
        target.listen(subsystem, socket={str(tmp_path)!r} + "/s")
        drive = attach({str(tmp_path)!r} + "/s")
        waits = drive.submit(read(0))
        assert hangs.wait(60)
        sys.exit(5)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")


def test_an_interpreter_ends_while_an_open_hangs_and_ctrl_c_interrupts_it(tmp_path: Path) -> None:
    done = child(
        """
        signal.signal(signal.SIGINT, signal.default_int_handler)
        class Hangs(Bare):
            def open(self):
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait()
        try:
            serve(Hangs())
        except KeyboardInterrupt:
            print("interrupted")
            sys.exit(130)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "interrupted\n", "")


def test_an_uncaught_exception_ends_a_process_that_serves(tmp_path: Path) -> None:
    done = child(
        """
        service = serve(Says())
        raise KeyError("mine")
        """,
        tmp_path,
    )
    assert done.returncode == 1
    assert done.stdout == "closed\n"
    assert done.stderr.splitlines()[-1] == "KeyError: 'mine'"
    assert "Fatal" not in done.stderr


def test_a_fork_of_a_process_that_serves_ends_without_it(tmp_path: Path) -> None:
    done = child(
        """
        service = serve(Says())
        child = os.fork()
        if child == 0:
            assert service.close()
            del service
            sys.exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        sys.exit(8)
        """,
        tmp_path,
    )
    # Python 3.12 and later warn of forks in programs with threads.
    assert "Fatal" not in done.stderr
    assert (done.returncode, done.stdout) == (8, "closed\n")


def test_a_signal_ends_a_process_that_serves(tmp_path: Path) -> None:
    done = child(
        """
        service = serve(Says())
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_other_interpreters_are_refused(tmp_path: Path) -> None:
    done = child(
        """
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            import _interpreters as interpreters
        made = interpreters.create()
        try:
            failed = interpreters.run_string(made, "import nvmet_vdev._nvmet")
        except Exception as error:
            failed = error
        assert failed is not None
        print("works in the main interpreter only" in str(failed))
        interpreters.destroy(made)
        service = serve(Says())
        assert service.close()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "True\nclosed\n"), done.stderr
