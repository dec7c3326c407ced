#!/usr/sbin/nbdkit python
# A file, with every callback that there is: nbdkit python file.py file=disk.img [log=FILE]
# With log=FILE every call is noted there, with its arguments.

import errno
import os

import nbdkit

API_VERSION = 2

filename = None
log = None


def note(*words):
    if log is not None:
        os.write(log, (" ".join(map(str, words)) + "\n").encode())


def dump_plugin():
    print("greeting=hello")


def config(key, value):
    global filename, log
    if key == "file":
        filename = os.path.abspath(value)
    elif key == "log":
        log = os.open(value, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    else:
        raise RuntimeError(f"unknown parameter {key}")
    note("config", key)


def config_complete():
    note("config_complete")
    if filename is None:
        raise RuntimeError("file=FILENAME is missing")


def thread_model():
    note("thread_model")
    return nbdkit.THREAD_MODEL_SERIALIZE_REQUESTS


def get_ready():
    note("get_ready")


def after_fork():
    note("after_fork")


def cleanup():
    note("cleanup")


def preconnect(readonly):
    note("preconnect", readonly)


def list_exports(readonly, is_tls):
    return [("disk", "the file")]


def default_export(readonly, is_tls):
    note("default_export", readonly, is_tls)
    return "disk"


def open(readonly):
    note("open", readonly, nbdkit.export_name())
    return {"fd": os.open(filename, os.O_RDONLY if readonly else os.O_RDWR)}


def close(h):
    note("close")
    os.close(h["fd"])


def export_description(h):
    return "the file"


def get_size(h):
    note("get_size")
    return os.fstat(h["fd"]).st_size


def block_size(h):
    return (512, 4096, 64 * 1024)


def is_rotational(h):
    note("is_rotational")
    return True


def can_multi_conn(h):
    note("can_multi_conn")
    return True


def can_write(h):
    note("can_write")
    return True


def can_flush(h):
    note("can_flush")
    return True


def can_trim(h):
    note("can_trim")
    return True


def can_zero(h):
    note("can_zero")
    return True


def can_fast_zero(h):
    note("can_fast_zero")
    return True


def can_fua(h):
    note("can_fua")
    return nbdkit.FUA_NATIVE


def can_cache(h):
    note("can_cache")
    return nbdkit.CACHE_NATIVE


def can_extents(h):
    note("can_extents")
    return True


def pread(h, buf, offset, flags):
    note("pread", len(buf), offset, flags)
    done = 0
    while done < len(buf):
        data = os.pread(h["fd"], len(buf) - done, offset + done)
        if not data:
            raise EOFError("the file is shorter than it was")
        buf[done : done + len(data)] = data
        done += len(data)


def put(h, data, offset, flags):
    view = memoryview(data)
    while len(view):
        written = os.pwrite(h["fd"], view, offset)
        view, offset = view[written:], offset + written
    if flags & nbdkit.FLAG_FUA:
        os.fdatasync(h["fd"])


def pwrite(h, buf, offset, flags):
    note("pwrite", len(buf), offset, flags)
    put(h, buf, offset, flags)


def flush(h, flags):
    note("flush", flags)
    os.fdatasync(h["fd"])


def trim(h, count, offset, flags):
    note("trim", count, offset, flags)
    put(h, bytes(count), offset, flags)


def zero(h, count, offset, flags):
    note("zero", count, offset, flags)
    if not flags & nbdkit.FLAG_MAY_TRIM:
        # Without an exception: this is enough for nbdkit to write zeroes itself.
        nbdkit.set_error(errno.EOPNOTSUPP)
        return
    put(h, bytes(count), offset, flags)


def cache(h, count, offset, flags):
    note("cache", count, offset, flags)


def extents(h, count, offset, flags):
    note("extents", count, offset)
    end = os.fstat(h["fd"]).st_size
    while offset < end:
        try:
            data = os.lseek(h["fd"], offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = end
        if data > offset:
            yield (offset, data - offset, nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO)
        hole = os.lseek(h["fd"], data, os.SEEK_HOLE) if data < end else end
        if hole > data:
            yield (data, hole - data, 0)
        offset = hole
