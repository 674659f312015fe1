"""Every refusal names the party that caused it, and every limit holds exactly: one less is refused, the limit
itself is not.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.agreement import Certificate, Vote
from protocols.codec import Record
from protocols.errors import PeerError, ProtocolViolation, TooFewSurvivors, WireError
from protocols.kernel import SERVER, Message, client
from protocols.roles import read
from protocols.sealing import OVERHEAD
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.messages import (
    ADVERTISE,
    CONFIRM,
    DIGEST_BYTES,
    INPUT,
    REVEAL,
    SHARE,
    UNMASK,
    Advertisement,
    Commitments,
    Dealing,
    Delivery,
    Masked,
    Neighbourhood,
    Opened,
    Reveal,
    Survivors,
    Unmask,
    indices,
    items,
    pack_bits,
)
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play, with_body

NAMES = [f"c{i}" for i in range(14)]
CREDENTIALS = Credentials.simulated(NAMES)
BOX = 64 + OVERHEAD


def semi_honest() -> SecAgg:
    return SecAgg(threat="semi-honest", dropout=0.3)


def voted() -> SecAgg:
    return SecAgg(threat="semi-malicious", dropout=0.2, collusion=0.1)


def committed() -> SecAggPlus:
    return SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=CREDENTIALS)


def blamed(do: Callable[[], object], why: str | None = None) -> str | None:
    with pytest.raises(PeerError, match=why) as caught:
        do()
    assert str(caught.value)
    return caught.value.party


class TestClients:
    """What a client refuses is the server's doing."""

    @pytest.mark.parametrize("alive", [[1, 2, 3, 4, 5], [0, 1], [0, 1, 2, 3, 6], []])
    def test_dishonest_sets_are_the_servers(self, alive: list[int]) -> None:
        play = Play(semi_honest(), 6)
        play.until(UNMASK)
        body = Unmask(pack_bits(alive, 8), None, b"")
        assert blamed(lambda: play.ask(UNMASK, 0, body)) == str(SERVER)

    @pytest.mark.parametrize(
        "certificate, inputs, why",
        [
            (Certificate(indices([1]), bytes(64)), b"", "signatures where nobody votes"),
            (None, bytes(64), "signed inputs of 0 survivors, got 1"),
        ],
    )
    def test_signatures_where_nobody_votes_are_the_servers(
        self, certificate: Certificate | None, inputs: bytes, why: str
    ) -> None:
        play = Play(semi_honest(), 6)
        play.until(UNMASK)
        body = Unmask(pack_bits(range(6), 6), certificate, inputs)
        assert blamed(lambda: play.ask(UNMASK, 0, body), why) == str(SERVER)

    def test_keys_of_voters_where_nobody_votes_are_the_servers(self) -> None:
        play = Play(semi_honest(), 6)
        request = play.until(SHARE)[0]
        more = replace(read(Neighbourhood, request), voters=indices([2]), voter_keys=bytes(32))
        assert blamed(lambda: play.tell(with_body(request, more)), "voters") == str(SERVER)

    @pytest.mark.parametrize("missing", [0, 1])
    def test_as_many_neighbours_as_the_threshold_are_enough(self, missing: int) -> None:
        play = Play(semi_honest(), 6)
        request = play.until(SHARE)[0]
        body, count = read(Neighbourhood, request), rules_of(play.session).threshold - missing
        asked = with_body(request, replace(body, clients=body.clients[:count], keys=body.keys[: 64 * count]))
        if missing:
            assert blamed(lambda: play.tell(asked), "at least") == str(SERVER)
        else:
            assert read(Dealing, play.tell(asked)[0]).holders.tolist() == body.clients[:count].tolist()

    @pytest.mark.parametrize("missing", [0, 1])
    def test_as_many_dealers_as_the_threshold_are_enough(self, missing: int) -> None:
        play = Play(semi_honest(), 6)
        request = play.until(INPUT)[0]
        body, count = read(Delivery, request), rules_of(play.session).threshold - missing
        some = Delivery(
            pack_bits(range(1 + count), 6),
            body.boxes[: BOX * count],
            body.digests[: 2 * DIGEST_BYTES * count],
        )
        asked = with_body(request, some)
        if missing:
            assert blamed(lambda: play.tell(asked), "at least") == str(SERVER)
        else:
            assert read(Masked, play.tell(asked)[0]).complaints.tolist() == []

    @pytest.mark.parametrize("parts", [bytes(32), bytes(64)])
    def test_parts_of_a_seed_that_nobody_committed_to_are_refused(self, parts: bytes) -> None:
        play = Play(semi_honest(), 6)
        request = play.until(SHARE)[0]
        asked = with_body(request, replace(read(Neighbourhood, request), parts=parts))
        assert blamed(lambda: play.tell(asked), "does not use") == str(SERVER)

    def test_bits_that_are_none_are_the_servers(self) -> None:
        play = Play(voted(), 8)
        play.until(CONFIRM)
        for bits in (b"", bytes(2), b"\xff\x01"):
            assert blamed(lambda b=bits: play.ask(CONFIRM, 0, Survivors(b))) == str(SERVER)  # type: ignore[misc]  # bound now

    @pytest.mark.parametrize("missing", [0, 1])
    def test_exactly_the_least_survivors_are_signed(self, missing: int) -> None:
        play = Play(voted(), 8)
        play.until(CONFIRM)
        rules = rules_of(play.session)
        least = max(rules.survivors, rules.threshold + 1) - missing
        body = Survivors(pack_bits(range(least), 8))
        if missing:
            assert blamed(lambda: play.ask(CONFIRM, 0, body)) == str(SERVER)
        else:
            assert len(read(Vote, play.ask(CONFIRM, 0, body)[0]).signature) == 64

    def test_a_forged_vote_is_its_signers_name(self) -> None:
        play = Play(voted(), 8)
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        assert body.certificate is not None
        voters, signatures = body.certificate.voters, body.certificate.signatures
        forged = Certificate(voters, signatures[:64] + bytes(64) + signatures[128:])
        asked = with_body(request, replace(body, certificate=forged))
        assert blamed(lambda: play.tell(asked)) == str(client(int(voters[1])))

    def test_an_input_that_is_not_signed_is_its_senders_name(self) -> None:
        """Clients 0 to 4 make the certificate, so 5, 6 and 7 are shown by their inputs."""
        play = Play(voted(), 8)
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        assert (rules_of(play.session).parameters.quorum, len(body.inputs)) == (5, 3 * 64)
        for inputs, party in (
            (body.inputs[:64] + bytes(64) + body.inputs[128:], "client 6"),
            (body.inputs[64:128] + body.inputs[:64] + body.inputs[128:], "client 5"),
            (body.inputs[:-64], "server"),
            (body.inputs + bytes(64), "server"),
            (b"", "server"),
        ):
            asked = with_body(request, replace(body, inputs=inputs))
            assert blamed(lambda a=asked: play.tell(a)) == party  # type: ignore[misc]  # bound now

    def test_votes_of_clients_without_a_vote_do_not_count(self) -> None:
        play = Play(voted(), 8)
        request = play.until(UNMASK)[0]
        body = read(Unmask, request)
        assert body.certificate is not None
        voters = indices([*body.certificate.voters.tolist()[:-1], 8])
        stranger = replace(body, certificate=Certificate(voters, body.certificate.signatures))
        assert blamed(lambda: play.tell(with_body(request, stranger)), "no vote") == str(SERVER)

    @pytest.mark.parametrize("missing", [0, 1])
    def test_commitments_of_a_threshold_of_others_are_enough(self, missing: int) -> None:
        play = Play(committed(), 14)
        request = play.until(REVEAL)[0]
        body, count = read(Commitments, request), rules_of(play.session).threshold + 1 - missing
        asked = with_body(request, Commitments(body.clients[:count], body.commitments[: 32 * count]))
        if missing:
            assert blamed(lambda: play.tell(asked), "at least") == str(SERVER)
        else:
            assert len(read(Reveal, play.tell(asked)[0]).part) == 32

    def test_a_commitment_of_nobody_on_the_roster_is_refused(self) -> None:
        play = Play(committed(), 14)
        request = play.until(REVEAL)[0]
        body = read(Commitments, request)
        for stranger in (14, 99):
            more = Commitments(indices([*body.clients.tolist(), stranger]), body.commitments + bytes(32))
            asked = with_body(request, more)
            assert blamed(lambda a=asked: play.tell(a), "not on the roster") == str(SERVER)  # type: ignore[misc]  # bound now


class TestServer:
    """What the server refuses is named after its sender, and the session goes on without it."""

    def answer(self, protocol: SecAgg | SecAggPlus, stage: str, n: int = 8) -> tuple[Play, Message]:
        play = Play(protocol, n)
        return play, play.tell(play.until(stage)[2])[0]

    @pytest.mark.parametrize(
        "make, stage, body",
        [
            (semi_honest, ADVERTISE, Advertisement(bytes(63))),
            (semi_honest, ADVERTISE, Advertisement(bytes(96))),
            (voted, ADVERTISE, Advertisement(bytes(64))),
            (semi_honest, UNMASK, Vote(bytes(64))),
            (voted, CONFIRM, Vote(bytes(64))),
            (voted, SHARE, Vote(bytes(64))),
            (semi_honest, INPUT, Masked(b"short")),
        ],
    )
    def test_a_bad_body_is_its_senders(self, make: Callable[[], SecAgg], stage: str, body: Record) -> None:
        play, answer = self.answer(make(), stage)
        assert blamed(lambda: play.hear(with_body(answer, body))) == "client 2"

    @pytest.mark.parametrize("stage", [ADVERTISE, SHARE, INPUT, CONFIRM, UNMASK])
    def test_an_answer_counts_once_and_from_who_was_asked(self, stage: str) -> None:
        play, answer = self.answer(voted(), stage)
        play.hear(answer)
        assert blamed(lambda: play.hear(answer), "already") == "client 2"
        stranger = replace(answer, sender_index=8)
        assert blamed(lambda: play.hear(stranger), "was not asked") == "client 8"
        assert blamed(lambda: play.hear(replace(answer, sender_role="holder"))) == "holder 2"
        assert client(2) not in list(play.server.waiting_for())
        assert client(3) in list(play.server.waiting_for())

    @pytest.mark.parametrize("make", [semi_honest, voted])
    def test_each_stage_needs_so_many_answers_and_no_more(self, make: Callable[[], SecAgg]) -> None:
        """One more than the threshold; as many as may survive; as many votes as are a quorum."""
        for stage in Play(make(), 8).stages:
            rules = rules_of(Play(make(), 8).session)
            least = rules.threshold + 1
            if stage in (SHARE, INPUT):
                least = max(least, rules.survivors)
            if stage == CONFIRM:
                least = rules.parameters.quorum
            for count in (least - 1, least):
                play = Play(make(), 8)
                play.until(stage)
                if count == least:
                    play.trip(absent=range(count, 8))
                else:
                    with pytest.raises(TooFewSurvivors, match=f"at least {least}|expected {least} votes"):
                        play.trip(absent=range(count, 8))

    def test_certificates_are_checked_at_once(self) -> None:
        protocol = SecAgg(threat="malicious", credentials=CREDENTIALS)
        play, answer = self.answer(protocol, ADVERTISE)
        keys = read(Advertisement, answer).keys
        assert (
            blamed(lambda: play.hear(with_body(answer, Advertisement(keys[:-64] + bytes(64))))) == "client 2"
        )
        assert (
            blamed(lambda: play.hear(with_body(answer, Advertisement(bytes(32) + keys[32:])))) == "client 2"
        )

    def test_a_part_other_than_committed_is_its_senders(self) -> None:
        play, answer = self.answer(committed(), REVEAL, 14)
        assert blamed(lambda: play.hear(with_body(answer, Reveal(bytes(32)))), "committed") == "client 2"

    def test_dealings_to_others_or_of_other_sizes_are_refused(self) -> None:
        play, answer = self.answer(semi_honest(), SHARE)
        good = read(Dealing, answer)
        fewer = Dealing(good.holders[1:], good.digests[32:], good.pledges, good.boxes[92:], b"")
        longer = replace(good, boxes=good.boxes + bytes(len(good.holders)))
        assert blamed(lambda: play.hear(with_body(answer, fewer)), "others than") == "client 2"
        assert blamed(lambda: play.hear(with_body(answer, longer)), "2 secrets for 7 holders") == "client 2"

    def test_complaints_are_about_ones_dealers(self) -> None:
        play, answer = self.answer(semi_honest(), INPUT)
        good = read(Masked, answer)
        for about in ([2], [8]):
            lie = with_body(answer, replace(good, complaints=indices(about)))
            assert blamed(lambda m=lie: play.hear(m)) == "client 2"  # type: ignore[misc]  # bound now

    def test_shares_of_the_other_kind_are_refused(self) -> None:
        """Opening the mask key of who stayed, or the seed of who left, would open both secrets of one client."""
        play = Play(semi_honest(), 8)
        play.until(INPUT)
        play.trip(absent=[5])
        request, state = play.until(UNMASK)[2], play.clients[2]
        answer = play.tell(request)[0]
        good = read(Opened, answer)
        assert good.owners.tolist() == [0, 1, 3, 4, 5, 6, 7]
        nobody = replace(good, owners=indices([0, 1, 3, 4, 5, 6, 8]))
        itself = replace(good, owners=indices([0, 1, 2, 4, 5, 6, 7]))
        more = replace(good, shares=good.shares + bytes(32))
        for lie, why in ((nobody, "not asked for"), (itself, "not asked for"), (more, "bytes of shares")):
            sent = with_body(answer, lie)
            assert blamed(lambda m=sent: play.hear(m), why) == "client 2"  # type: ignore[misc]  # bound now
        both = state.held  # type: ignore[attr-defined]  # the state that opens
        kinds = {j: both[j][32:] if j != 5 else both[j][:32] for j in good.owners.tolist()}
        for j in (4, 5):
            at = 32 * good.owners.tolist().index(j)
            shares = good.shares[:at] + kinds[j] + good.shares[at + 32 :]
            assert not play.server._keep(2, j, kinds[j])  # type: ignore[attr-defined]  # as below
            play.hear(with_body(answer, replace(good, shares=shares)))
            play.server.answers.clear()  # type: ignore[attr-defined]  # to hear it again
            assert play.server.blamed.pop() == "client 2"  # type: ignore[attr-defined]  # likewise

    def test_a_share_that_was_never_dealt_is_its_openers_lie(self) -> None:
        """On a sparse graph a holder opens a share of somebody who is not its neighbour."""
        play = Play(SecAggPlus(threat="semi-honest", neighbours=6, threshold=4, collusion=0.0), 14)
        requests = play.until(UNMASK)
        for request in requests:
            answer = play.tell(request)[0]
            good, index = read(Opened, answer), request.recipient.number
            strange = next(j for j in (13, *range(13)) if j not in (*good.owners.tolist(), index))
            at = sum(j < strange for j in good.owners.tolist())
            shares = items(good.shares, 32)
            lie = replace(
                good,
                owners=indices(sorted([*good.owners.tolist(), strange])),
                shares=b"".join([*shares[:at], bytes(32), *shares[at:]]),
            )
            play.hear(with_body(answer, lie) if index in (0, 1) else answer)
        total = play.finish()
        assert total.blamed == ("client 0", "client 1")
        assert total.total.tolist() == play.expected(range(14))


class TestReuse:
    """Rounds that build on a set-up: the same, where shares of one round's seeds and edges are released."""

    def released(self) -> tuple[Play, Message, Opened]:
        """Eight clients of whom client 6 left before the second round's vectors; what client 2 then releases."""
        protocol = SecAgg(dropout=0.2, collusion=0.1, threat="semi-malicious", setup="reuse")
        first = Play(protocol, 8)
        first.finish()
        memories = {"memories": first.memories, "server_memory": first.server_memory, "round": 2}
        play = Play(protocol, 8, **memories)  # type: ignore[arg-type]  # three of its options
        play.trip(absent=[6])
        answer = play.tell(next(m for m in play.queue if m.recipient == client(2)))[0]
        return play, answer, read(Opened, answer)

    def test_shares_that_were_not_asked_for_are_their_senders(self) -> None:
        play, answer, good = self.released()
        assert good.owners.tolist() == [0, 1, 3, 4, 5, 7]
        assert len(good.shares) == 6 * (32 + 16)
        lies = [replace(good, owners=indices([*good.owners.tolist()[:-1], other])) for other in (8, 99)]
        lies.append(replace(good, owners=indices([0, 1, 2, 4, 5, 7])))
        lies.append(replace(good, owners=indices([0, 1, 3, 4, 5, 6])))
        lies += [replace(good, shares=good.shares + bytes(16)), replace(good, shares=good.shares[:-16])]
        for lie in lies:
            with pytest.raises(PeerError) as caught:
                play.hear(with_body(answer, lie))
            assert caught.value.party == "client 2"
        play.hear(answer)
        assert client(2) not in list(play.server.waiting_for())
        assert blamed(lambda: play.hear(answer), "already") == "client 2"


def test_a_masked_vector_of_another_length_names_its_sender() -> None:
    play = Play(semi_honest(), 6)
    answer = play.tell(play.until(INPUT)[1])[0]
    good = read(Masked, answer)
    for vector in (good.vector[:-1], good.vector + b"\0"):
        sent = with_body(answer, replace(good, vector=vector))
        with pytest.raises(WireError) as caught:
            play.hear(sent)
        assert caught.value.party == "client 1"
    with pytest.raises(WireError) as caught:
        play.hear(replace(answer, body=good.encode()[:7]))
    assert caught.value.party == "client 1"
    play.hear(answer)
    with pytest.raises(ProtocolViolation, match="already"):
        play.hear(answer)
