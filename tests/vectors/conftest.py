"""Run folders need the extras `torch` and `flower`: without them, their vectors are not collected.

`tests/pythons.py` installs the project without them; all other vectors run there.
"""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") and find_spec("flwr") else ["test_runs.py"]
