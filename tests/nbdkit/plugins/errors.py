# Every block fails in its own way, for every kind of request; block 0 and those after the table do not.

import errno

import nbdkit

API_VERSION = 2

BLOCK = 4096
NUMBERS = [
    errno.EIO,
    errno.EPERM,
    errno.EROFS,
    errno.EACCES,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EINVAL,
    errno.ETIMEDOUT,
    errno.EOVERFLOW,
    errno.EOPNOTSUPP,
    errno.EAGAIN,
    errno.ENOENT,
    999,
    0,
]


def no_exception():
    # Said, but not raised: nothing failed.
    nbdkit.set_error(errno.ENOSPC)


def plain():
    raise RuntimeError("plain")


def os_error():
    # Its errno is not asked.
    raise OSError(errno.ENOSPC, "no space, but I did not say so")


def exits():
    raise SystemExit(3)


def interrupted():
    raise GeneratorExit


def twice():
    nbdkit.set_error(errno.ENOSPC)
    nbdkit.set_error(errno.EPERM)
    raise RuntimeError("the last word counts")


def wrong_argument():
    nbdkit.set_error("ENOSPC")


OTHERS = [no_exception, plain, os_error, exits, interrupted, twice, wrong_argument]
disk = bytearray((len(NUMBERS) + len(OTHERS) + 7) * BLOCK)


def fail(offset):
    index = offset // BLOCK - 1
    if 0 <= index < len(NUMBERS):
        nbdkit.set_error(NUMBERS[index])
        raise RuntimeError(f"block {index + 1}")
    index -= len(NUMBERS)
    if 0 <= index < len(OTHERS):
        OTHERS[index]()


def open(readonly):
    return 1


def get_size(h):
    return len(disk)


def pread(h, buf, offset, flags):
    fail(offset)
    buf[:] = disk[offset : offset + len(buf)]


def pwrite(h, buf, offset, flags):
    # nbdkit aborts if a pwrite that stands for a zero is not supported.
    if NUMBERS.index(errno.EOPNOTSUPP) != offset // BLOCK - 1:
        fail(offset)
    disk[offset : offset + len(buf)] = buf


flushes = 0


def flush(h, flags):
    global flushes
    flushes += 1
    if flushes % 3 == 0:
        nbdkit.set_error(errno.ENOSPC)
        raise RuntimeError("every third")


def trim(h, count, offset, flags):
    fail(offset)


def zero(h, count, offset, flags):
    fail(offset)
    disk[offset : offset + count] = bytes(count)


def extents(h, count, offset, flags):
    fail(offset)
    kinds = {
        24: [],
        25: None,
        26: [(offset + 1, count, 0)],
        27: [(offset, count)],
        28: [(offset, 512, 0), (offset + 1024, 512, 0)],
        29: [(0, 512, 0)],
    }
    return kinds.get(offset // BLOCK, [(offset, count, 0)])
