"""The files of a federation's run, from torch's side: the model's file, and whether there is a run to go on with.

What does not belong here: what is kept, in which order and why (`fl.round.run_files`).
"""

from pathlib import Path
from typing import Any

from fl.round.run_files import CHECKPOINT, KeptRun, load
from protocols.errors import Misuse
from protocols.extras import needs

MODEL = "model.safetensors"


def model_bytes(state: dict[str, Any]) -> bytes:
    """Return a state dict as a safetensors file."""
    with needs("torch", "Saving a model"):
        from safetensors.torch import save
    # tensors that share storage are written once per name
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()})


def rounds_in(folder: Path) -> int:
    """Return how many rounds the checkpoint in `folder` holds: 0 for a run that was cut off before its first
    ended, or where there is none. Raises SecAggError if it is damaged or of another version.
    """
    kept = load(folder)
    return 0 if kept is None else kept.rounds


def begun(folder: Path) -> bool:
    """Return whether `folder` holds a checkpoint to go on from."""
    return (folder / CHECKPOINT).exists()


def load_run(folder: Path) -> KeptRun:
    """Return the run in `folder`. Raises Misuse if there is none, SecAggError as `fl.round.run_files.load` does."""
    kept = load(folder)
    if kept is None:
        raise Misuse(f"nothing to resume in {folder}: there is no {CHECKPOINT}")
    return kept
