"""Optional dependencies: which extra brings which library, and one clear sentence where it is missing.

Belongs here: the table of extras and the guard around their imports. The imports themselves stay where the
library is used.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from protocols.errors import MissingExtra

EXTRAS = {
    "torch": ("torch", "opacus", "safetensors", "sklearn"),
    "trainer": ("transformers", "accelerate", "peft"),
    "lightning": ("lightning",),
    "femnist": ("h5py",),
    "he": ("phe", "gmpy2", "tenseal", "backports"),
    "flower": ("flwr", "ray"),
    "nvflare": ("nvflare",),
    "audit": ("hypothesis",),
    "plots": ("matplotlib", "pandas"),
    "search": ("optuna",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}
"""Extra -> the modules that it brings, by their import names; pyproject.toml holds the versions."""


@contextmanager
def needs(extra: str, what: str = "this part of the toolkit") -> Iterator[None]:
    """Guards imports: `with needs("he", "PaillierSum"): import phe`.

    Raises `MissingExtra` in place of the `ModuleNotFoundError` of a library that `extra` brings. Any other
    import error, a bug of ours included, passes unchanged. Raises KeyError for an unknown extra.
    """
    modules = EXTRAS[extra]
    try:
        yield
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root not in modules:
            raise
        raise MissingExtra(sentence(extra, root, what), name=root) from error


def extra_of(module: str) -> str | None:
    """The extra that brings `module` (a dotted import name), or None."""
    root = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if root in modules), None)


def sentence(extra: str, module: str, what: str) -> str:
    """The one sentence that a user reads where `module` of `extra` is missing."""
    return f"{what} needs {module}, which is not installed: pip install 'secagg-toolkit[{extra}]'"


def missing(extra: str) -> list[str]:
    """The modules of `extra` that are not installed, without importing any of them."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
