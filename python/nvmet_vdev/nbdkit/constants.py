"""The constants of the module `nbdkit`, by their names there (nbdkit-plugin(3))."""

from __future__ import annotations

from typing import Final

THREAD_MODEL_SERIALIZE_CONNECTIONS: Final = 0
THREAD_MODEL_SERIALIZE_ALL_REQUESTS: Final = 1
THREAD_MODEL_SERIALIZE_REQUESTS: Final = 2
THREAD_MODEL_PARALLEL: Final = 3

FLAG_MAY_TRIM: Final = 1 << 0
FLAG_FUA: Final = 1 << 1
FLAG_REQ_ONE: Final = 1 << 2
FLAG_FAST_ZERO: Final = 1 << 3

FUA_NONE: Final = 0
FUA_EMULATE: Final = 1
FUA_NATIVE: Final = 2

CACHE_NONE: Final = 0
CACHE_EMULATE: Final = 1
CACHE_NATIVE: Final = 2

EXTENT_HOLE: Final = 1 << 0
EXTENT_ZERO: Final = 1 << 1

#: Names of the thread models in ``--dump-plugin``, by their values.
THREAD_MODELS: Final = ("serialize_connections", "serialize_all_requests", "serialize_requests", "parallel")
#: The newest form of callbacks that there is.
MAX_API_VERSION: Final = 2
