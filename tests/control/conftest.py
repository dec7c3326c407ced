"""A server that the cases of one module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.fakes import serving


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a server on a fake."""
    with serving(tmp_path_factory.mktemp("control")) as server:
        yield server.path
