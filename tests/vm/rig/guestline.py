"""The kernel's command line: the console on the first serial port; the second is the agent's."""

from __future__ import annotations

CONSOLE = "console=ttyS0 panic=-1"
# Seconds of a boot under TCG that prove nothing about a drive.
FAST = (
    "quiet nokaslr mitigations=off no_timer_check tsc=reliable random.trust_cpu=on "
    "cryptomgr.notests audit=0 lsm= nowatchdog ipv6.disable=1 rcupdate.rcu_expedited=1"
)
