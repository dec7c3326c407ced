# Checks what it is configured with: size=SIZE is needed, fill=BYTE may be given, ro=true makes it read-only.
# The order of calls is kept: each sees that those before it have been.

import os

import nbdkit

API_VERSION = 2

called = ["load"]
size = None
fill = 0
read_only = False


def after(name, *before):
    assert called[-1] in before, f"{name} after {called[-1]}"
    called.append(name)


def dump_plugin():
    print("checked_says=yes")


def config(key, value):
    global size, fill, read_only
    after("config", "load", "config")
    if key == "size":
        size = nbdkit.parse_size(value)
    elif key == "fill":
        fill = int(value, 0)
        if not 0 <= fill < 256:
            raise ValueError("fill= must be a byte")
    elif key == "ro":
        read_only = value == "true"
    else:
        raise RuntimeError(f"unknown parameter {key}")


def config_complete():
    after("config_complete", "load", "config")
    if size is None:
        raise RuntimeError("size=SIZE is missing")


def get_ready():
    after("get_ready", "config_complete")


def after_fork():
    after("after_fork", "get_ready")


def preconnect(readonly):
    after("preconnect", "after_fork")
    if os.environ.get("CHECKED_REFUSE"):
        raise PermissionError("nobody may connect")


def open(readonly):
    after("open", "preconnect")
    nbdkit.debug("opened")
    return bytearray([fill]) * size


def get_size(h):
    after("get_size", "open")
    return len(h)


def can_write(h):
    after("can_write", "get_size")
    return not read_only


def can_flush(h):
    return False


def can_fua(h):
    return nbdkit.FUA_EMULATE


def pread(h, buf, offset, flags):
    buf[:] = h[offset : offset + len(buf)]


def pwrite(h, buf, offset, flags):
    h[offset : offset + len(buf)] = buf


def flush(h, flags):
    h[-1] = (h[-1] + 1) % 256


def close(h):
    after("close", "can_write", "get_size")


def cleanup():
    after("cleanup", "close")
