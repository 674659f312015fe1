"""Sums and inputs that attacks on CKKS sessions start from."""

from he.arrangements import SharedByClients
from he.ckks import CKKSSum, SharedKey
from he.ckks.ciphertexts import Upload
from he.roles.messages import (
    EncryptedInput,
)
from protocols.kernel import Message
from tests.contracts.secure_sum import vectors

N, DIMENSION, BOUND = 4, 6, 1000
INPUTS = vectors(N, DIMENSION, BOUND, 11)
SUMS = [CKKSSum(), CKKSSum(SharedByClients(), key=SharedKey(b"k" * 32))]


def upload_of(sent: Message) -> Upload:
    return Upload.decode(EncryptedInput.decode(sent.body).ciphertexts)
