"""Real Linux guests in QEMU that use a drive of ours; see README.md beside this file."""
