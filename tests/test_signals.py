"""Signals that land in the middle of everything: every system call of the target may be interrupted."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path

from tests.product import PATIENCE, PROGRAM, environment, serve


def test_a_storm_of_signals_costs_no_data_and_no_connection(tmp_path: Path) -> None:
    with serve("disk.img", "--create", "48M", cwd=tmp_path) as server:
        bench = subprocess.Popen(
            [PROGRAM, "bench", server.socket, "--verify", "--bs", "16k", "--output", "json"],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        rounds = 0
        try:
            while bench.poll() is None and rounds < PATIENCE * 500:
                # A stop and a continue interrupt every thread of the target, whatever it waits for.
                server.process.send_signal(signal.SIGSTOP)
                server.process.send_signal(signal.SIGCONT)
                rounds += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    bench.wait(0.001)
            out, err = bench.communicate(timeout=PATIENCE)
        finally:
            server.process.send_signal(signal.SIGCONT)
            bench.kill()
            bench.wait(PATIENCE)
        assert bench.returncode == 0, err
        assert json.loads(out)["verify"]["mismatched"] == 0
        assert rounds > 10
        assert server.stop() == 0
