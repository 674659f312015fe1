"""What every test runs under: one thread per numerical library, since the tests themselves run side by side, and
real data where a folder `shared/data` lies beside the checkout (tests that need it skip where there is none).
"""

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
if BESIDE.is_dir():
    os.environ.setdefault("SECAGG_DATA", str(BESIDE))
