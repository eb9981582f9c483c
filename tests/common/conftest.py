"""Hypothesis profiles: the default one is the same on every run; ``VMACCORD_HYPOTHESIS=search`` looks for new examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A slow machine is no failure of the code under test.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)

settings.register_profile("repeatable", _COMMON, derandomize=True, max_examples=60)
settings.register_profile("search", _COMMON, max_examples=2000)
settings.load_profile(os.environ.get("VMACCORD_HYPOTHESIS", "repeatable"))
