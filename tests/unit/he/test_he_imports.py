"""`import he` costs nothing and a missing library gives one sentence with the pip command."""

import subprocess
import sys

import pytest

import he

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
import he
assert not set({blocked}) & set(sys.modules)
try:
    he.{name}()
except ImportError as error:
    print(error)
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


@pytest.mark.parametrize("name, library", [("PaillierSum", "gmpy2"), ("CKKSSum", "tenseal")])
def test_a_missing_library_gives_one_sentence_with_the_command(name: str, library: str) -> None:
    said = run(BLOCKED.format(blocked=[library], name=name)).strip()
    assert said == f"{name} needs {library}, which is not installed: pip install 'secagg-toolkit[he]'"


def test_importing_he_loads_no_library_of_the_extra() -> None:
    said = run("import sys, he; print([m for m in ('gmpy2', 'tenseal', 'phe') if m in sys.modules])")
    assert said.strip() == "[]"


def test_paillier_sums_need_no_phe() -> None:
    said = run(BLOCKED.format(blocked=["phe", "tenseal"], name="PaillierSum"))
    assert said == ""


def test_other_names_are_no_attributes() -> None:
    assert set(he.__all__) == {"CKKSSum", "KeyHolder", "PaillierSum", "SharedByClients", "Threshold"}
    with pytest.raises(AttributeError, match="Nothing"):
        he.Nothing  # noqa: B018  # the access is what is tested
