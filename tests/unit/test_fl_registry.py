"""Names and options on the command line and in TOML: what they build, and the one sentence where they are
wrong.
"""

import textwrap
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from fl.data.partition import PARTITIONS
from fl.registry import DATA, MODELS, PRIVACY, STRATEGIES, Registry, privacy_layers
from fl.specs import Spec, bind, parse_spec, spec_of_table
from protocols.errors import Misuse


@dataclass(frozen=True)
class Layer:
    dropout: float = 0.1
    threat: Literal["semi-honest", "malicious"] = "semi-honest"
    neighbours: int | None = None
    secure: bool = True
    clip: float | str = 1.0
    sizes: tuple[int, ...] = ()
    beacon: bytes = b""
    holder: Path | None = None


@dataclass(frozen=True)
class Strict:
    epsilon: float

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise ValueError("epsilon must be positive")


def needs_shape(input_shape: tuple[int, ...], width: int = 8) -> tuple[object, int]:
    return input_shape, width


REGISTRY = Registry("toy layer", "secagg_toolkit.no_such_group", {"toy+": f"{__name__}:Layer"})


def build(text: str) -> Layer:
    spec = parse_spec(text, ["toy+"])
    return Layer(**bind(spec, Layer, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("toy+", Layer()),
        ("toy+:dropout=0.4,threat=malicious", Layer(dropout=0.4, threat="malicious")),
        ("toy+:dropout=1", Layer(dropout=1.0)),
        ("toy+: dropout = 1e-3 , neighbours=12", Layer(dropout=1e-3, neighbours=12)),
        ("toy+:neighbours=none,secure=false", Layer(secure=False)),
        ("toy+:clip=adaptive", Layer(clip="adaptive")),
        ("toy+:clip=2.5", Layer(clip=2.5)),
        ("toy+:sizes=[64,32],dropout=0.2", Layer(sizes=(64, 32), dropout=0.2)),
        ("toy+:beacon=00ff", Layer(beacon=b"\x00\xff")),
    ],
)
def test_text_options_take_the_types_of_the_signature(text: str, layer: Layer) -> None:
    assert build(text) == layer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("toy+:dropuot=0.4", "Did you mean 'dropout'"),
        ("toy+:zzz=1", "Its options: dropout (a number, 0.1 unless given), threat (semi-honest or malicious"),
        ("toy+:zzz=1", "clip (a number or text, 1.0 unless given)"),
        ("toy+:dropout=much", "dropout takes a number, not 'much'"),
        ("toy+:dropout=nan", "dropout takes a number"),
        ("toy+:threat=evil", "semi-honest or malicious"),
        ("toy+:secure=maybe", "secure takes true or false"),
        ("toy+:neighbours=1.5", "neighbours takes a whole number"),
        ("toy+:beacon=xyz", "beacon takes hexadecimal bytes"),
        ("toy+:holder=me", "holder takes a value that only Python code can give"),
        ("toy+:dropout", "not an option of the form key=value"),
        ("toy+:dropout=1,dropout=2", "given twice"),
        ("toy+:=2", "not an option"),
    ],
)
def test_wrong_text_options_are_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(Misuse) as refused:
        build(text)
    assert says in str(refused.value)


def test_toml_values_keep_their_types() -> None:
    spec = spec_of_table({"name": "toy+", "dropout": 1, "neighbours": 4, "sizes": [3]}, "here")
    assert Layer(**bind(spec, Layer, {})) == Layer(dropout=1.0, neighbours=4, sizes=(3,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"dropout": "0.4"}, {"neighbours": True}, {"secure": 1}, {"threat": "evil"}]
)
def test_toml_values_of_another_type_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(Misuse):
        bind(spec_of_table({"name": "toy+", **options}, "here"), Layer, {})


def test_a_table_without_a_name_is_refused() -> None:
    with pytest.raises(Misuse, match="needs a key `name`"):
        REGISTRY.build({"dropout": 0.4})


def test_a_required_option_is_asked_for() -> None:
    with pytest.raises(Misuse, match="needs the option epsilon"):
        bind(Spec("strict"), Strict, {})


def test_what_the_caller_gives_is_no_option_of_the_user() -> None:
    assert bind(Spec("m", {"width": "4"}), needs_shape, {"input_shape": (2,), "other": 1}) == {
        "input_shape": (2,),
        "width": 4,
    }
    with pytest.raises(Misuse, match="no option 'input_shape'"):
        bind(Spec("m", {"input_shape": "4"}), needs_shape, {"input_shape": (2,)})


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Misuse) as refused:
        PRIVACY.build("secag+")
    assert "Did you mean 'secagg" in str(refused.value)
    assert "paillier" in str(refused.value)


@pytest.mark.parametrize("registry", [PRIVACY, STRATEGIES, DATA, MODELS])
def test_every_built_in_name_points_into_this_project(registry: Registry) -> None:
    packages = {reference.partition(":")[0].partition(".")[0] for reference in registry.builtin.values()}
    assert packages <= {"protocols", "secagg", "dp", "he", "fl"}


@pytest.mark.parametrize("registry", [PRIVACY, STRATEGIES, DATA, MODELS, PARTITIONS])
def test_every_built_in_name_stands_for_something_that_exists(registry: Registry) -> None:
    assert all(callable(registry.factory(name)) for name in registry.builtin)


def test_none_stands_alone() -> None:
    assert privacy_layers([]) == []
    assert privacy_layers(["none"]) == []
    with pytest.raises(Misuse, match="stands alone"):
        privacy_layers(["none", "secagg"])
    with pytest.raises(Misuse, match="takes no options"):
        privacy_layers(["none:dropout=1"])


def test_a_reference_builds_the_users_own_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_layers_zq.py").write_text(
        textwrap.dedent(
            """
            def mine(size: int = 3) -> dict:
                return {"size": size}

            def broken():
                raise ValueError("no luck")

            number = 5
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    assert PRIVACY.build("my_layers_zq:mine") == {"size": 3}
    assert PRIVACY.build("my_layers_zq:mine:size=7") == {"size": 7}
    with pytest.raises(Misuse, match="no luck") as caught:
        PRIVACY.build("my_layers_zq:broken")
    assert "no luck" not in str(caught.value), "a server may be told it, and the user's words may quote data"
    with pytest.raises(Misuse, match="not a function or class"):
        PRIVACY.build("my_layers_zq:number")
    with pytest.raises(Misuse, match="cannot be loaded"):
        PRIVACY.build("my_layers_zq:missing")
    with pytest.raises(Misuse, match="cannot be loaded"):
        PRIVACY.build("no_such_module_zq:missing")
    (tmp_path / "my_broken_zq.py").write_text("1 / 0\n")
    with pytest.raises(Misuse, match="division by zero") as caught:
        PRIVACY.build("my_broken_zq:mine")
    assert str(caught.value).endswith("cannot be loaded: ZeroDivisionError")
    (tmp_path / "my_syntax_zq.py").write_text("def (\n")
    with pytest.raises(Misuse, match=r"my_syntax_zq\.py, line 1"):
        PRIVACY.build("my_syntax_zq:mine")


def test_entry_points_add_names_but_replace_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = "secagg_toolkit.toys"
    meta = tmp_path / "toys_zq-1.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: toys-zq\nVersion: 1\n")
    (meta / "entry_points.txt").write_text(f"[{group}]\nextra = toys_zq:Extra\nold = toys_zq:Extra\n")
    (tmp_path / "toys_zq.py").write_text(
        "class Extra:\n    def __init__(self, n: int = 1):\n        self.n = n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("toy", group, {"old": "builtins:dict"})
    assert registry.names() == ["old", "extra"]
    assert registry.build("extra:n=4").n == 4  # type: ignore[attr-defined]
    assert registry.build("old") == {}
    assert EntryPoint("extra", "toys_zq:Extra", group).load() is registry.factory("extra")


def test_underscores_in_names_are_hyphens() -> None:
    assert DATA.parse("breast_cancer").name == "breast-cancer"
