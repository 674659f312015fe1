"""Clients that skip one check of a request: what a list of forgeries must find in the built-ins as they are named."""

from functools import partial
from typing import Any

from secagg import Credentials, SecAgg, SecAggPlus
from secagg.client.dealing import unsealed
from secagg.client.masking import Masking
from secagg.client.opening import Opening
from secagg.client.sharing import Sharing
from secagg.client.view import View
from secagg.commitments import joint_seed
from secagg.messages import Delivery, Unmask
from tests.defects.pieces import anything_goes
from tests.defects.planting import Defect, put

CERTIFIED = View._certified


def drawing_together() -> SecAggPlus:
    """Clients commit to parts of a sparse graph's randomness, and reveal them."""
    return SecAggPlus(threat="malicious", credentials=Credentials.simulated(range(12)))


def any_box(self: Opening, asked: Unmask, alive: set[int]) -> dict[int, bytes]:
    """Boxes of whoever enrolled are opened, not survivors' alone."""
    if not asked.boxes:
        return self.held
    return {j: unsealed(self, j, self.held[j], box) for j, box in asked.boxes.items()}


def any_parts(self: Sharing, parts: bytes) -> bytes:
    """Parts are taken as they are shown."""
    return joint_seed(self.session.context, self.committed, parts) if self.committed else self.rules.seed


def whose_keys_it_has(self: Masking, delivery: Delivery) -> list[int]:
    """It masks with the dealers whose keys it was given."""
    dealers = self.view("dealers", delivery.dealers, self.graph_seed)
    return [j for j in self.rules.neighbours(self.index, self.graph_seed) if j in dealers & set(self.pairs)]


def signed_inputs_do(self: View, session: Any, asked: Unmask, keys: dict[int, bytes]) -> set[int]:
    """Where no votes come, signed inputs are enough."""
    return CERTIFIED(self, session, asked, keys) if asked.certificate is not None else set()


forged = partial(Defect, caught_by="forged-requests-refused")
DEFECTS = (
    forged(
        "a list without the client's own commitment",
        plant=put("secagg.client.revealing.Revealing._check", anything_goes),
        protocol=drawing_together,
    ),
    forged(
        "commitments that nobody compares with the certified ones",
        plant=put("secagg.client.sharing.Sharing._compare_commitments", anything_goes),
        protocol=drawing_together,
    ),
    forged(
        "parts that nobody compares with their commitments",
        plant=put("secagg.client.sharing.Sharing._graph_seed", any_parts),
        protocol=drawing_together,
    ),
    forged(
        "boxes of clients that did not survive are opened",
        plant=put("secagg.client.opening.Opening._shares", any_box),
        protocol=partial(SecAgg, setup="reuse"),
    ),
    forged(
        "no mask with a neighbour whose keys were kept back",
        plant=put("secagg.client.masking.Masking._mates", whose_keys_it_has),
        protocol=SecAggPlus,
    ),
    forged(
        "signed inputs in place of votes",
        plant=put("secagg.client.view.View._certified", signed_inputs_do),
        protocol=SecAggPlus,
    ),
)
