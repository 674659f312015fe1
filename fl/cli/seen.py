"""What the server saw of one client's update, beside the update itself: for the closing table of `secagg run`."""

from typing import Any

import numpy as np
from rich.table import Table

from protocols.kernel import SERVER, Message

SHOWN = 6
INPUTS = ("input", "masked-input", "encrypted-input")


class SeenInput:
    """Catches the first message that carries a client's input, and that client's own integers."""

    def __init__(self, federation: Any) -> None:
        self._engine = federation.engine
        self._protocol = federation.setup.stack.secure_sum
        self._counting: str | None = None
        self.caught: bytes = b""
        self.client = ""
        self.own: list[int] = []

    def observe(self, message: Message) -> None:
        """Observer of the engine: keep the first input that reaches the server."""
        if self.caught or message.recipient != SERVER or message.stage not in INPUTS:
            return
        if self._engine.first is None or message.sender.role != "client":
            return
        name, vector = self._engine.first
        if self._engine.session.roster[message.sender.number] != name:
            return
        self.client, self._session = name, self._engine.session  # a later round's may be of another dimension
        where = np.flatnonzero(vector)[:SHOWN]
        self.own = [int(x) for x in vector[where[0] : where[0] + SHOWN]] if len(where) else []
        self._first = int(where[0]) if len(where) else 0
        self.caught = message.body

    def table(self) -> Table:
        """Coordinates of the update, as the client has them and as the server received them."""
        title = f"One client's update ({self.client}), coordinates {self._first} to {self._first + SHOWN - 1}"
        table = Table(title=title, show_header=False)
        table.add_row("the update, weighted and quantised", "  ".join(str(x) for x in self.own))
        table.add_row("what the server saw", "  ".join(self.received()))
        return table

    def received(self) -> list[str]:
        """The same coordinates out of the message: ring elements of a masked vector, else raw bytes."""
        name = self._protocol.name
        where = slice(self._first, self._first + SHOWN)
        if name.startswith("secagg"):
            from secagg.messages import Masked
            from secagg.packing import unpack
            from secagg.ring import Ring

            ring = Ring(self._session.ring_bits())
            packed = Masked.decode(self.caught).vector
            return [str(int(v)) for v in unpack(packed, self._session.dimension, ring)[where]]
        if name == "none":
            from protocols.plain import PlainInput

            return [str(int(v)) for v in PlainInput.decode(self.caught).vector[where]]
        middle = len(self.caught) // 2
        return [self.caught[middle : middle + 24].hex(" "), "..."]
