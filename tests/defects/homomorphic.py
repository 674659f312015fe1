"""Broken homomorphic sums: each a few lines over the good one."""

from functools import partial
from typing import Any

import gmpy2

from he import CKKSSum, PaillierSum
from he.arrangements import KeyHolder, SharedByClients, Threshold
from he.ckks.ciphertexts import Sum, open_sum
from he.ckks.coefficients import gather
from he.ckks.joining import published
from he.ckks.messages import Published
from he.ckks.parameters import scheme
from he.ckks.whole_key import pad_for
from he.paillier.cipher import centre
from he.paillier.randomisers import Randomiser
from he.roles import voting
from he.roles.messages import OpenRequest
from he.roles.parties import MayOpen
from he.roles.scheme import opened
from protocols.kernel import Left, Step
from tests.defects.pieces import anything_goes
from tests.defects.planting import Defect, put, together
from tests.paillier_fixed import fixed


def paillier() -> PaillierSum:
    return fixed(KeyHolder())


def threshold() -> PaillierSum:
    return fixed(Threshold())


def two_of_three() -> PaillierSum:
    """One decryptor may be corrupt, so all must agree."""
    return fixed(Threshold(2, 3, corrupt=1))


def no_randomiser(self: Any, count: int, random: Any) -> list[Any]:
    return [Randomiser(gmpy2.mpz(1), bytes(1))] * count


def one_vote(voters: int, corrupt: int) -> int:
    return 1


def no_tags(plaintexts: Any, seed: bytes, n: int) -> list[int]:
    return [m % n for m in plaintexts]


def nothing_removed(opened: Any, seeds: Any, n: int) -> list[int]:
    return [centre(value % n, n) for value in opened]


def check_values_ignored(session: Any, asked: Any, boxes: Any, check_key: bytes, secret: bytes) -> Any:
    parameters = scheme(session)
    pads = (pad_for(boxes[i], session, i) for i in asked.tickets)
    coefficients = open_sum(Sum.decode(asked.ciphertexts), parameters, len(asked.tickets), secret, pads)
    return gather(coefficients, parameters, int(session.modulus))


def with_the_secret(secrets: Any, session: Any, identity: Any) -> Published:
    shown = PUBLISHED(secrets, session, identity)
    return Published(shown.context + secrets.private, shown.key, shown.signature)


def whatever_it_insists_on(
    self: Any, session: Any, party: Any, *, random: Any, policy: Any = None, memory: Any = None
) -> Any:
    return self._helper(session, party, random, policy or self.default_policy, memory)


def any_two(self: Any, clients: int) -> int:
    return min(2, clients)


def in_the_first_ciphertext_only(box_key: bytes, session: Any, index: int) -> Any:
    pad = PAD_FOR(box_key, session, index)
    pad[scheme(session).degree :] = 0
    return pad


def any_list(self: MayOpen, request: Any, random: Any) -> Step:
    """A client opens whatever is named, with the votes for what it was asked to vote for."""
    asked, session, context = self.take(OpenRequest, request), self.session, self.session.context
    keys = {i: voting.client_voter(self.key.secret, context, i).public for i in range(session.clients)}
    voting.expect_agreement(context, self.listed, asked.certificate, keys, 0, "client")
    return Step(Left(), self.answer(opened(session, self.key, asked)), marks=(f"answered/{context.hex()}",))


PAD_FOR = pad_for
PUBLISHED = published
DEFECTS = (
    Defect(
        "no agreement among decryptors",
        "no-schedule-tells-two-sums",
        together(
            *(put(f"{place}.quorum", one_vote) for place in ("he.roles.voting", "he.paillier.decryptors"))
        ),
        two_of_three,
    ),
    Defect(
        "another list opened than was voted for",
        "no-decryption-oracle",
        put("he.roles.parties.MayOpen.receive", any_list),
        partial(CKKSSum, SharedByClients()),
    ),
    Defect(
        "a sum opened with fewer votes than a quorum",
        "no-decryption-oracle",
        put("he.roles.voting.check_certificate", anything_goes),
        two_of_three,
    ),
    Defect(
        "contributions without a proof of knowledge",
        "copied-contributions-are-not-summed",
        put("he.paillier.messages.check", anything_goes),
        threshold,
    ),
    Defect(
        "deterministic encryption",
        "randomised",
        put("he.paillier.randomisers.Randomisers.take", no_randomiser),
        threshold,
    ),
    Defect(
        "single Paillier ciphertext opened",
        "no-decryption-oracle",
        together(
            put("he.paillier.whole_key.add_tags", no_tags),
            put("he.paillier.whole_key.remove_tags", nothing_removed),
        ),
        paillier,
    ),
    Defect(
        "single CKKS ciphertext opened",
        "no-decryption-oracle",
        put("he.ckks.whole_key.opened", check_values_ignored),
        CKKSSum,
    ),
    Defect(
        "two contributions are opened by default",
        "no-decryption-oracle",
        put("he.roles.sum.HomomorphicSum.least_sum", any_two),
        CKKSSum,
    ),
    Defect(
        "fewer contributions opened than promised",
        "no-decryption-oracle",
        put("he.roles.scheme.expect_clients", lambda session, indices: None),
        paillier,
    ),
    Defect(
        "only the first CKKS ciphertext bound",
        "no-decryption-oracle",
        put("he.ckks.whole_key.pad_for", in_the_first_ciphertext_only),
        CKKSSum,
    ),
    Defect(
        "a key holder's own policy ignored",
        "weakened-parameters-refused",
        put("protocols.protocol.Protocol.helper", whatever_it_insists_on),
        CKKSSum,
    ),
    Defect(
        "secret key in a context",
        "secrets-stay-with-their-owner",
        put("he.ckks.sum.published", with_the_secret),
        CKKSSum,
    ),
)
