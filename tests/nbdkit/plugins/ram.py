# A RAM disk in twenty lines: nbdkit python ram.py size=1M

import nbdkit

API_VERSION = 2

disk = bytearray(1 << 20)


def config(key, value):
    global disk
    if key != "size":
        raise RuntimeError(f"unknown parameter {key}")
    disk = bytearray(nbdkit.parse_size(value))


def open(readonly):
    return 1


def get_size(h):
    return len(disk)


def pread(h, buf, offset, flags):
    buf[:] = disk[offset : offset + len(buf)]


def pwrite(h, buf, offset, flags):
    disk[offset : offset + len(buf)] = buf


def trim(h, count, offset, flags):
    disk[offset : offset + count] = bytes(count)


def zero(h, count, offset, flags):
    disk[offset : offset + count] = bytes(count)
