# A large thin disk: pages that were never written are holes. No flush, no FUA, no zero.

import nbdkit

API_VERSION = 2

PAGE = 4096
pages = {}


def open(readonly):
    return pages


def get_size(h):
    return 1 << 40


def page(h, offset):
    return h.get(offset // PAGE * PAGE, bytes(PAGE))


def pread(h, buf, offset, flags):
    done = 0
    while done < len(buf):
        inside = (offset + done) % PAGE
        count = min(PAGE - inside, len(buf) - done)
        buf[done : done + count] = page(h, offset + done)[inside : inside + count]
        done += count


def pwrite(h, buf, offset, flags):
    done = 0
    while done < len(buf):
        inside = (offset + done) % PAGE
        count = min(PAGE - inside, len(buf) - done)
        content = bytearray(page(h, offset + done))
        content[inside : inside + count] = buf[done : done + count]
        h[offset + done - inside] = bytes(content)
        done += count


def trim(h, count, offset, flags):
    first = -(-offset // PAGE) * PAGE
    for key in [key for key in h if first <= key and key + PAGE <= offset + count]:
        del h[key]


def extents(h, count, offset, flags):
    start = offset // PAGE * PAGE
    written = sorted(key for key in h if start <= key < offset + count)
    for key in written:
        if key > start:
            yield (start, key - start, nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO)
        yield (key, PAGE, 0)
        start = key + PAGE
    if start < offset + count:
        yield (start, offset + count - start, nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO)
