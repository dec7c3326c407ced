# Each read waits until crowd=N are there, and returns how many there were; 0 if they did not come.

import threading
import time

import nbdkit

API_VERSION = 2

crowd = 1
inside = 0
changed = threading.Condition()


def config(key, value):
    global crowd
    assert key == "crowd", key
    crowd = int(value)


def thread_model():
    return nbdkit.THREAD_MODEL_PARALLEL


def open(readonly):
    return 1


def get_size(h):
    return 1 << 20


def pread(h, buf, offset, flags):
    global inside
    with changed:
        inside += 1
        changed.notify_all()
        together = changed.wait_for(lambda: inside >= crowd, timeout=60)
    time.sleep(0.001)
    buf[:] = bytes([inside if together else 0]) * len(buf)
