"""The head of a ledger: one digest of its terms and of all its charges, and the same signed, for others to keep.

Belongs here: the digest, the signed form and its checks. Does not belong here: the file (`dp.ledger_store`), whose key
it is. Whoever can write the ledger's file can also write a head that fits: what proves something is a signed head that
somebody else keeps. Every charge up to it, and the budget, are then what they were when it was signed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from protocols.errors import Misuse, PeerError, StoreError
from protocols.identity import Identity, from_hex, verify

FORMAT = "secagg-ledger-head/1"
PURPOSE = "ledger head"
_DOMAIN = b"secagg ledger head v1\0"


def head_of(terms: Mapping[str, Any], charges: int, last: str) -> str:
    """SHA-256 (64 hexadecimal digits) over the terms, the number of charges and the last one's digest ("" for none)."""
    body = {"terms": dict(terms), "charges": charges, "last": last}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(_DOMAIN + text.encode()).hexdigest()


@dataclass(frozen=True)
class SignedHead:
    """A head for others to keep: terms, how many charges, the last one's digest, the signer's key and signature
    (hexadecimal).
    """

    terms: dict[str, Any]
    charges: int
    last: str
    head: str
    public_key: str
    signature: str

    @classmethod
    def sign(cls, terms: Mapping[str, Any], charges: int, last: str, signer: Identity) -> Self:
        """Return the head of a ledger with these terms and charges, signed."""
        head = head_of(terms, charges, last)
        signature = signer.sign(PURPOSE, bytes.fromhex(head)).hex()
        return cls(dict(terms), charges, last, head, signer.public.hex(), signature)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; `from_json` is its inverse."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Raises Misuse for anything that is not a signed head of this format."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise Misuse(f"expected a signed head of format {FORMAT}")
        try:
            made = cls(**{name: value for name, value in data.items() if name != "format"})
            texts = (made.last, made.head, made.public_key, made.signature)
            if type(made.charges) is not int or not all(isinstance(text, str) for text in texts):
                raise TypeError("a field has another type")
            if made.head != head_of(made.terms, made.charges, made.last):
                raise ValueError("its head is not that of its terms and charges")
        except (TypeError, ValueError) as error:
            raise Misuse(f"not a signed head of format {FORMAT}: {error}") from None
        return made

    def check_signature(self, public_key: bytes) -> None:
        """Raises StoreError unless `public_key` (32 bytes) signed it."""
        try:
            verify(public_key, PURPOSE, bytes.fromhex(self.head), from_hex(self.signature))
        except (PeerError, ValueError):
            raise StoreError(f"the ledger's head is not signed by key {public_key.hex()[:16]}") from None


@dataclass(frozen=True)
class LedgerVerdict:
    """What a verification of a ledger established.

    level: "internally consistent only" (whoever can write the file could have written all of it), "fits the head"
    (nothing up to the kept head was edited, removed or re-priced, if the head is what somebody kept) or "verified"
    (also, the key given signed that head). charges, head: of the ledger now. kept: charges that the kept head covers,
    None without one.
    """

    level: str
    charges: int
    head: str
    kept: int | None = None
