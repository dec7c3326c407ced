"""What the VM cases stand on: it prepares QEMU and a guest in a cache, boots the guest, and serves it drives.

Nothing here knows a test. Standard library only, so that `python -m tests.vm.setup` runs before
anything is installed.
"""
