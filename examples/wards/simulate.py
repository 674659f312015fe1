"""The wards' job in NVFlare's simulator: `PYTHONPATH=examples/wards python examples/wards/simulate.py FOLDER`."""

import sys
from pathlib import Path

from nvflare.recipe.sim_env import SimEnv

from fl.nvflare import allow_classes, private_job

WARDS = ["site-1", "site-2", "site-3"]

if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    allow_classes(folder / "wards")  # the simulator, too, builds listed classes alone
    job = private_job("wards", "ward:federation", rounds=2)
    SimEnv(clients=WARDS, workspace_root=str(folder)).deploy(job)
    print(folder / "wards" / "server" / "simulate_job" / "secagg" / "runs" / "run")
