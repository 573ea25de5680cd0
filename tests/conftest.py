"""Before torch is imported: workers of a test run share the cores, so each computes in one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
