"""What all tests share."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("nvmet_vdev") is None or importlib.util.find_spec("nvmet_vdev._nvmet") is None:
    raise pytest.UsageError(
        "nvmet_vdev is not built in this environment; run `make build` and .venv/bin/pytest"
    )
