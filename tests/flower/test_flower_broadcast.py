"""What a node is shown is bound to the session, and what leaves it is protocol frames: no more records, no texts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fl.flower.arrays import arrays_of, config_bytes
from fl.flower.messages import pack, unpack_answer, unpack_request
from fl.flower.mod import privacy_mod
from fl.flower.strategy import PrivateStrategy
from fl.network.messages import CLOSE, START, VERSION, Answer, Header, Request
from fl.round import RoundResult, open_round, reference_of
from protocols.errors import PeerError, WireError
from protocols.identity import Identity
from protocols.layers import RunFacts
from protocols.record import HEAD_PURPOSE
from protocols.stack import Stack
from secagg import SecAggPlus
from tests.flower import test_flower_apps as apps
from tests.flower.direct import DirectGrid, fedavg, model, play_out, rostered

Train = Callable[[Message, Context], Any]
SECRET = "row 17: name=Jane Roe"


def masks() -> list[Any]:
    return [SecAggPlus(threat="semi-honest", dropout=0.25, collusion=0.0)]


def play(grid: DirectGrid, arguments: dict[str, Any]) -> RoundResult:
    strategy = PrivateStrategy(fedavg(2), masks(), **arguments, stage_timeout=0.1, poll=0.01)
    play_out(strategy, grid, arrays_of(model()), num_rounds=1)
    return strategy.history[0]


def refused(report: RoundResult) -> str:
    """Why site-2, and nobody else, took no part."""
    assert (report.abandoned, report.survivors) == (None, ("site-1", "site-3", "site-4"))
    return report.refusals["site-2"]


# -- what comes in --


def adding(records: dict[str, Any], kind: str = "train") -> Callable[[int, Message], Message]:
    """What the roster's server signed, with something added on the way to node 2."""

    def before(node: int, message: Message) -> Message:
        if node != 2 or unpack_request(message.content, None)[0].kind != START:
            return message
        content = RecordDict({k: v for k, v in {**message.content, **records}.items() if v is not None})
        return Message(content, node, kind)

    return before


EXTRA: dict[str, dict[str, Any]] = {
    "config": {"zz": ConfigRecord({"lr": 100.0})},
    "arrays": {"aux": ArrayRecord({"a": Array(np.ones(3, np.float32))})},
    "metrics": {"seen": MetricRecord({"loss": 1.0})},
    "renamed config": {"config": None, "other": ConfigRecord({"server-round": 1})},
    "no arrays": {"arrays": None},
    "other kind": {"arrays": ConfigRecord({"lr": 100.0})},
}


@pytest.mark.parametrize("records", EXTRA.values(), ids=list(EXTRA))
def test_a_record_that_the_session_does_not_bind_is_refused_by_name(
    tmp_path: Path, records: dict[str, Any]
) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()), before=adding(records))
    why = refused(play(grid, arguments))
    assert "ProtocolViolation" in why
    assert repr(next(name for name in reversed(records))) in why


@pytest.mark.parametrize("label", [{"shape": (2, 6)}, {"dtype": "float64"}], ids=["shape", "dtype"])
def test_an_arrays_labels_are_those_of_its_content(tmp_path: Path, label: dict[str, Any]) -> None:
    """The session binds the content; an app may well read the labels."""
    arrays = arrays_of(model())
    weight = arrays["layer.weight"]
    own = {"dtype": weight.dtype, "shape": weight.shape, "stype": weight.stype, "data": weight.data}
    arrays["layer.weight"] = Array(**{**own, **label})
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()), before=adding({"arrays": arrays}))
    why = refused(play(grid, arguments))
    assert "WireError: layer.weight: expected" in why


def test_a_message_of_another_type_runs_nothing(tmp_path: Path) -> None:
    ran: list[str] = []

    def two_functions(mod: Any) -> ClientApp:
        app = app_of(replying(model(), **{"num-examples": 3}), mod)

        @app.train("evil")
        def evil(message: Message, context: Context) -> Message:
            ran.append("evil")
            return message

        return app

    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()), before=adding({}, "train.evil"))
    grid.apps[2] = (two_functions(privacy_mod(masks())), grid.apps[2][1])
    why = refused(play(grid, arguments))
    assert ("ProtocolViolation" in why, "'train.evil'" in why, ran) == (True, True, [])


def test_a_federations_node_takes_the_model_and_nothing_else(tmp_path: Path) -> None:
    def before(node: int, message: Message) -> Message:
        return adding({"zz": ConfigRecord({"lr": 100.0})})(node, message)

    result = apps.serve(apps.grid_of(tmp_path, before=before), apps.federation(), 1)
    assert result.history[0].survivors == ("site-1", "site-3", "site-4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ConfigRecord({"k": b"\xab"}), ConfigRecord({"k": "ab"})),
        (ConfigRecord({"k": [b"\xab"]}), ConfigRecord({"k": ["ab"]})),
        (ConfigRecord({"k": 1}), ConfigRecord({"k": 1.0})),
        (ConfigRecord({"k": 1}), ConfigRecord({"k": True})),
        (ConfigRecord({"k": 1}), ConfigRecord({"k": "1"})),
        (ConfigRecord({}), None),
    ],
)
def test_configurations_of_other_types_have_other_digests(
    one: ConfigRecord, other: ConfigRecord | None
) -> None:
    stack, reference = Stack(masks()), reference_of(model())
    run = RunFacts(rounds=1, population=3, cohort=3, dimension=reference.schema.dimension)
    digests = {
        open_round(stack, run, 1, ("a", "b", "c"), reference, config=config_bytes(config)).digest
        for config in (one, other)
    }
    assert len(digests) == 2


# -- what goes out --


def app_of(train: Train, *mods: Any) -> ClientApp:
    app = ClientApp(mods=list(mods))
    app.train()(train)
    return app


def replying(arrays: dict[str, np.ndarray], **metrics: Any) -> Train:
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": arrays_of(arrays), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    return train


def raising(error: BaseException) -> Train:
    def train(message: Message, context: Context) -> Message:
        raise error

    return train


def failing(message: Message, context: Context) -> Message:
    return Message(Error(7, SECRET), reply_to=message)


def unreadable(message: Message, context: Context) -> Message:
    junk = ArrayRecord({"w": Array("uint8", (3,), "numpy.ndarray", SECRET.encode())})
    return Message(RecordDict({"arrays": junk, "m": MetricRecord({"num-examples": 1})}), reply_to=message)


BAD: dict[str, tuple[Train, str]] = {
    "error": (raising(ValueError(SECRET)), "the app failed: ValueError"),
    "own type of ours": (raising(WireError(SECRET)), "the app failed: WireError"),
    "error reply": (failing, "the app answered with an error"),
    "nothing": (lambda message, context: None, "NoneType"),
    "nan": (replying(model(), **{"num-examples": float("nan")}), "whole number of examples"),
    "inf": (replying(model(), **{"num-examples": float("inf")}), "whole number of examples"),
    "half": (replying(model(), **{"num-examples": 10.5}), "whole number of examples"),
    "negative": (replying(model(), **{"num-examples": -1}), "whole number of examples"),
    "list": (replying(model(), **{"num-examples": [1, 2]}), "whole number of examples"),
    "unreadable": (unreadable, "not an array in NumPy's format"),
}


@pytest.mark.parametrize(("train", "said"), BAD.values(), ids=list(BAD))
def test_what_an_app_fails_with_stays_in_its_own_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, train: Train, said: str
) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()))
    grid.apps[2] = (app_of(train, privacy_mod(masks())), grid.apps[2][1])
    came: list[str] = []
    grid.after = lambda node, reply: came.append(str(reply)) or reply  # type: ignore[func-returns-value]
    with caplog.at_level(logging.ERROR, "flwr"):
        why = refused(play(grid, arguments))
    assert said in why
    assert not any(SECRET[:5] in text for text in (*came, why))
    if "own log" in why:
        assert any("Jane" in str(r.exc_info) + r.getMessage() for r in caplog.records)


def test_an_exception_of_a_federations_training_stays_there(tmp_path: Path) -> None:
    def train(model: Any, loader: Any) -> None:
        raise KeyError(SECRET)

    def make() -> Any:
        return replace_train(apps.federation(), train)

    came: list[str] = []

    def after(node: int, reply: Message) -> Message:
        came.append(reply.error.reason if reply.has_error() else "")
        return reply

    result = apps.serve(apps.grid_of(tmp_path, make, after=after), make(), 1)
    assert result.history[0].abandoned is not None
    assert any("its loop failed: KeyError" in why for why in came)
    assert not any(SECRET[:5] in why for why in came)


def replace_train(own: Any, train: Any) -> Any:
    own.setup = replace(own.setup, train=type(own.setup.train)(train))
    return own


def test_a_record_of_a_mod_in_front_is_named_and_the_answer_dropped(tmp_path: Path) -> None:
    def outer(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if reply.has_content():
            reply.content["leak"] = MetricRecord({"x": 1.0})
        return reply

    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()))
    train = replying(model(), **{"num-examples": 3})
    grid.apps[2] = (app_of(train, outer, privacy_mod(masks())), grid.apps[2][1])
    why = refused(play(grid, arguments))
    assert "'leak'" in why
    assert "first" in why


def test_an_answer_is_its_body_and_its_frames_alone() -> None:
    answer = Answer(VERSION, bytes(32), "x", "site-1", 0.0, 0.0, False, 0)
    content = pack(answer, (), None)
    content.config_records["secagg"]["more"] = 1
    with pytest.raises(PeerError, match="more"):
        unpack_answer(content, None)


# -- the record's head --


def close(signer: Identity, header: Header) -> Message:
    request = Request(VERSION, CLOSE, bytes(32), CLOSE, "site-1", "client", 0, header, 0)
    return Message(pack(request, (), signer), 1, "train")


@pytest.mark.parametrize(
    "change",
    [
        {"head": "zz"},
        {"head": "ab" * 5000},
        {"head": "AB" * 32},
        {"head": "ab" * 31 + " a"},
        {"federation": "other"},
        {"serial": 99},
    ],
    ids=["letters", "long", "upper", "space", "federation", "serial"],
)
def test_a_head_of_another_form_or_federation_is_not_kept(tmp_path: Path, change: dict[str, Any]) -> None:
    grid, arguments = rostered(tmp_path, 4, privacy_mod(masks()))
    play(grid, arguments)
    header = next(
        request.header
        for _, message in grid.log
        if (request := unpack_request(message.content, None)[0]).header is not None
    )
    kept = tmp_path / "keys" / "site-1" / "kept-heads.txt"
    before = kept.read_text()
    signer, head = arguments["identity"], change.get("head", "ab" * 32)
    try:
        signature = signer.sign(HEAD_PURPOSE, bytes.fromhex(head))
    except ValueError:
        signature = b""
    lie = replace(header, head="ab" * 32, head_signature=signature)
    origin = {name: value for name, value in change.items() if name != "head"}
    lie = replace(lie, terms=replace(lie.terms, origin=replace(lie.terms.origin, **origin)))
    object.__setattr__(lie, "head", head)  # a server need not keep to our checks
    reply = tell(grid, close(signer, lie))
    assert reply.has_error()
    assert any(kind in reply.error.reason for kind in ("WireError", "ProtocolViolation"))
    assert kept.read_text() == before
    sound = replace(
        header, head="cd" * 32, head_signature=signer.sign(HEAD_PURPOSE, bytes.fromhex("cd" * 32))
    )
    assert not tell(grid, close(signer, sound)).has_error()
    assert kept.read_text() == before + "cd" * 32 + "\n"


def tell(grid: DirectGrid, message: Message) -> Message:
    message.metadata.__dict__["_message_id"] = "last"
    reply = grid.deliver(1, message)
    assert reply is not None
    return reply
