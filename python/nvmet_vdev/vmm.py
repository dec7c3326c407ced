"""The command lines that give a virtual machine the drive on a socket, ready to paste."""

from __future__ import annotations

import json
import os
import shlex

_MACHINES = {"aarch64": ("qemu-system-aarch64", "virt"), "x86_64": ("qemu-system-x86_64", "q35")}


def qemu(socket: str, memory: str = "2G") -> str:
    """A QEMU command line (10.1.1 or later); guest memory is shared, or the drive could not reach it."""
    program, machine = _MACHINES.get(os.uname().machine, _MACHINES["x86_64"])
    # The quotes of JSON do not survive a comma in QEMU's dotted form, so the device is JSON.
    device = json.dumps(
        {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": socket}}, separators=(",", ":")
    )
    return " \\\n    ".join(
        [
            f"{program} -machine {machine},accel=kvm:tcg,memory-backend=mem -m {memory}",
            f"-object memory-backend-memfd,id=mem,size={memory},share=on",
            f"-device {shlex.quote(device)}",
        ]
    )


def cloud_hypervisor(socket: str, memory: str = "2G") -> str:
    """A Cloud Hypervisor command line; the kernel is the reader's own."""
    return " \\\n    ".join(
        [
            f"cloud-hypervisor --memory size={memory},shared=on --kernel ./vmlinux",
            f"--user-device {shlex.quote(f'socket={socket}')}",
        ]
    )
