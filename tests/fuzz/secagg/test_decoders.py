"""Any byte string fed to a decoder gives a message or a WireError. One target per decoder; hypothesis
makes the bytes.

Random bytes are refused early, so half of the cases are real encodings with a few bytes changed, cut out or
repeated.
"""

import dataclasses
import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import agreement, roles
from protocols.codec import Record, decode_tagged
from protocols.errors import SecAggError, WireError
from protocols.kernel import Left
from protocols.summation import Total
from secagg import Credentials, SecAgg, SecAggPlus, memory
from secagg import client as clients
from secagg import messages as m
from secagg import server as servers
from secagg.client.tries import Tries
from secagg.mask_parameters import MaskParameters
from tests.property.secagg.play import Play

MESSAGES = [
    roles.Ask,
    m.Advertisement,
    m.Commitments,
    m.Reveal,
    m.Neighbourhood,
    m.Dealing,
    m.Delivery,
    m.Masked,
    m.Survivors,
    agreement.Vote,
    m.Unmask,
    m.Opened,
    m.Proceed,
]
KEPT = [MaskParameters, Tries, memory.ClientMemory, memory.ServerMemory]
STATES = [*clients.STATES, *servers.STATES]


def name_of(kind: type[Record]) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def target(kind: type[Record], data: bytes) -> None:
    """The fuzz target of one decoder: a WireError, or a record that encodes to the very bytes."""
    try:
        record = kind.decode(data)
    except WireError:
        return
    assert record.encode() == data


@functools.cache
def corpus() -> dict[str, list[bytes]]:
    """Real encodings, by class."""
    found: dict[str, list[bytes]] = {}

    def keep(record: Record) -> None:
        found.setdefault(name_of(type(record)), []).append(record.encode())

    def look(play: Play) -> None:
        for state in (play.server, *play.clients.values()):
            keep(state)
        for sent in [*play.queue[:1], *play.answers[-1:]]:
            for kind in MESSAGES:
                try:
                    keep(kind.decode(sent.body))
                except WireError:
                    continue

    names = Credentials.simulated([f"c{i}" for i in range(14)])
    sparse = SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=names)
    for protocol, n in (
        (SecAgg(), 4),
        (SecAgg(threat="semi-honest"), 4),
        (sparse, 14),
        (SecAgg(setup="reuse"), 4),
        (SecAggPlus(setup="reuse", neighbours=6, threshold=4), 14),
    ):
        play = Play(protocol, n)
        later = None
        keep(MaskParameters.decode(play.session.parameters))
        while not isinstance(play.server, Total):
            look(play)
            play.trip()
        look(play)
        if play.server_memory is not None:
            keep(memory.ClientMemory.decode(play.memories[0]))
            keep(memory.ServerMemory.decode(play.server_memory))
            later = Play(protocol, n, memories=play.memories, server_memory=play.server_memory, round=2)
            look(later)
    return found


@st.composite
def mangled(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A real encoding with up to four bytes changed, a piece cut out or a piece repeated."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, min(len(data), 400) - 1))] = draw(st.integers(0, 255))
    start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    if draw(st.booleans()):
        del data[start:stop]
    elif draw(st.booleans()):
        data[start:start] = data[start:stop]
    return bytes(data)


@pytest.mark.parametrize("kind", [*MESSAGES, *KEPT, *STATES], ids=name_of)
def test_any_bytes_give_a_record_or_a_wire_error(kind: type[Record]) -> None:
    originals = corpus().get(name_of(kind), [b""])

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.one_of(st.binary(max_size=300), mangled(originals)))
    def check(data: bytes) -> None:
        target(kind, data)

    check()


@pytest.mark.parametrize("kind", [*MESSAGES, *STATES], ids=name_of)
def test_every_decoder_has_met_a_real_encoding(kind: type[Record]) -> None:
    assert corpus().get(name_of(kind)), "the corpus never met this record"


def test_states_are_decoded_by_tag_and_unknown_tags_are_refused() -> None:
    protocol = SecAgg()
    kinds = {1: Left, 2: Total, **protocol.kinds}
    for tag in range(70):
        data = tag.to_bytes(2, "big") + b"\xff" * 5
        with pytest.raises(WireError):
            decode_tagged(data, kinds)


def test_mangled_messages_do_not_get_past_a_client_unnoticed() -> None:
    """Whatever a relay does to a request, a client answers it, or raises an error of ours; nothing else
    comes out.
    """

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        play = Play(SecAgg(threat=data.draw(st.sampled_from(["semi-honest", "semi-malicious"]))), 4)
        stage = data.draw(st.sampled_from(play.stages))
        request = play.until(stage)[0]
        bent = dataclasses.replace(request, body=data.draw(mangled([request.body])))
        try:
            play.tell(bent)
        except SecAggError:
            return
        assert play.answers[-1].stage == stage

    check()
