"""The same examples on every run: a property that fails once fails for everybody."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pure",
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # the first example pays for compiling a model's reader
)
settings.load_profile("pure")
