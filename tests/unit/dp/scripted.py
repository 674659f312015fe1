"""Random bytes that a test writes down, in place of the system's."""


class Script:
    """A source that returns bytes made up beforehand, to force the rare branch."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def bytes(self, count: int) -> bytes:
        chunk = self.chunks.pop(0)
        assert len(chunk) == count
        return chunk


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)
