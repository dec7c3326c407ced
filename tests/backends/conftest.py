"""Property tests: the same cases at every run, and no time limits."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "nvmet",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("nvmet")
