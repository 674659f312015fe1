"""Rounds on one set-up, and the pieces of them that tests look into."""

from collections.abc import Sequence

from protocols.kernel import Message
from protocols.roles import read
from secagg import Credentials, SecAgg
from secagg.messages import (
    Dealing,
    Masked,
    Unmask,
    items,
    pack_bits,
)
from tests.property.secagg.play import Play, with_body

CREDENTIALS = Credentials.simulated([f"c{i}" for i in range(8)])


def protocol() -> SecAgg:
    return SecAgg(setup="reuse", dropout=0.25, collusion=0.1)


def again(play: Play, round: int, n: int = 8, **changes: object) -> Play:
    """The next round of the same parties."""
    return Play(
        play.protocol,
        n,
        memories=play.memories,
        server_memory=play.server_memory,
        round=round,
        **changes,  # type: ignore[arg-type]  # the tests name them
    )


def first_round(n: int = 8) -> Play:
    play = Play(protocol(), n)
    play.finish()
    return play


def dealt(body: Masked) -> Dealing:
    """The shares that come with a masked vector."""
    assert body.dealing is not None
    return body.dealing


def shown(request: Message, alive: Sequence[int], clients: int = 8) -> Message:
    """The request as a server would make it that shows these survivors of so many clients."""
    body, holder = read(Unmask, request), request.recipient.number
    others = [i for i in alive if i != holder]
    signed = dict(zip(sorted(body.boxes), items(body.inputs, 64), strict=True))
    boxes = {i: body.boxes[i] for i in others}
    return with_body(
        request, Unmask(pack_bits(alive, clients), None, b"".join(signed[i] for i in others), boxes)
    )
