# The first form of the API: pread returns the data, nothing has flags. log=FILE notes every call.

import os

import nbdkit

disk = bytearray(256 * 1024)
log = None


def note(*words):
    if log is not None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())


def config(key, value):
    global log
    if key != "log":
        raise KeyError(key)
    log = os.open(value, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def open(readonly):
    note("open", readonly)
    return {"reads": 0}


def close(h):
    note("close", h["reads"])


def get_size(h):
    return len(disk)


def can_fua(h):
    # There is no flag to hand it on with.
    return nbdkit.FUA_EMULATE


def pread(h, count, offset):
    note("pread", count, offset)
    h["reads"] += 1
    if h["reads"] % 3 == 0:
        return memoryview(disk)[offset : offset + count]
    if h["reads"] % 3 == 1:
        # More than was asked for is cut off.
        return bytes(disk[offset : offset + count]) + b"more"
    return disk[offset : offset + count]


def pwrite(h, buf, offset):
    note("pwrite", len(buf), offset)
    disk[offset : offset + len(buf)] = buf


def flush(h):
    note("flush")


def trim(h, count, offset):
    note("trim", count, offset)
    disk[offset : offset + count] = b"\xdd" * count


def zero(h, count, offset, may_trim):
    note("zero", count, offset, may_trim)
    if not may_trim:
        nbdkit.set_error(95)
        raise NotImplementedError("only where I may trim")
    disk[offset : offset + count] = bytes(count)
