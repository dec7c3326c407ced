# A disk that is nowhere: every eight bytes hold their own offset. Read-only, in blocks of 4096.

from nbdkit import *

API_VERSION = 2


def open(readonly):
    return None


def get_size(h):
    return parse_size("512K")


def block_size(h):
    return (4096, 4096, 0xFFFFFFFF)


def can_cache(h):
    return CACHE_EMULATE


def pread(h, buf, offset, flags):
    words = memoryview(buf).cast("Q")
    for index in range(len(words)):
        words[index] = offset + 8 * index
