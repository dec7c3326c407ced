"""Memory as a plugin of nbdkit's, for nbdkit and for `nvmet-vdev run nbdkit:`."""

import nbdkit

API_VERSION = 2
SIZE = 64 << 20

disk = bytearray(SIZE)


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def open(readonly):
    return 1


def get_size(h):
    return SIZE


def pread(h, buf, offset, flags):
    buf[:] = disk[offset : offset + len(buf)]


def pwrite(h, buf, offset, flags):
    disk[offset : offset + len(buf)] = buf
