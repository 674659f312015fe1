"""The toolkit on NVFlare: a Controller and an Executor that play a Federation's rounds, and the job that names them.

What belongs here: everything that imports nvflare. What touches more of it than its documented classes lies in
`compat`. What does not belong here: protocols, layers, training, and what every network shares (`fl.network`).
"""

from fl.nvflare.controller import PrivateController
from fl.nvflare.executor import PrivateExecutor
from fl.nvflare.job import allow_classes, deny_code, private_job

__all__ = ["PrivateController", "PrivateExecutor", "allow_classes", "deny_code", "private_job"]
