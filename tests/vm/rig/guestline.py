"""The kernel's command line: the console on the first serial port; the second is the agent's."""

from __future__ import annotations

# A guest under TCG on a busy machine can stand still for a while: the driver's patience is longer than its
# usual 30 s and 60 s, and still shorter than a script's, so that a lost completion is told.
PATIENCE = "nvme_core.io_timeout=120 nvme_core.admin_timeout=120"
CONSOLE = f"console=ttyS0 panic=-1 {PATIENCE}"
# Seconds of a boot under TCG that prove nothing about a drive.
FAST = (
    "quiet nokaslr mitigations=off no_timer_check tsc=reliable random.trust_cpu=on "
    "cryptomgr.notests audit=0 lsm= nowatchdog ipv6.disable=1 rcupdate.rcu_expedited=1"
)
