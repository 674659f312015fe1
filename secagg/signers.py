"""Whose signatures count in a session. What does not belong here: what is signed (`commitments`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocols.codec import Record
from secagg.messages import Indices, indices, listed
from secagg.session_rules import Rules


@dataclass(frozen=True, eq=False)
class Signers(Record):
    """The session's signing keys that a client was given (32 bytes each); nobody's where the roster's keys sign."""

    clients: Indices
    keys: bytes

    @classmethod
    def known(cls, rules: Rules, keys: Mapping[int, bytes]) -> "Signers":
        """The keys of these clients."""
        some = sorted(keys) if rules.keyed else []
        return cls(indices(some), b"".join(keys[j] for j in some))

    def of(self, rules: Rules) -> dict[int, bytes]:
        if rules.certified:
            return {j: rules.identity(j) for j in range(rules.clients)}
        return listed(self.clients, self.keys)
