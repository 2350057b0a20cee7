"""Settings of the whole suite."""

from __future__ import annotations

import os

# One thread for each test process and its children: the suite runs in two processes, and results do not depend on
# the number of cores. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis

import targets  # noqa: F401  triton before TensorFlow, whatever a test imports first (targets)
from targets.sdk import quiet_sdks

quiet_sdks()
# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")
