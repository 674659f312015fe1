"""Who is who and who shares masks with whom is not for the server to choose in the malicious model."""

from dataclasses import replace

import numpy as np
import pytest

from protocols.errors import (
    Misuse,
    PeerError,
    PolicyRefusal,
    ProtocolViolation,
    TooFewSurvivors,
)
from protocols.identity import Identity, Member, Roster, SignedRoster
from protocols.kernel import Message
from protocols.randomness import SystemRandom
from protocols.roles import read
from protocols.session import Session
from secagg import Credentials, SecAgg, SecAggPlus
from secagg.mask_parameters import MaskParameters
from secagg.messages import (
    REVEAL,
    Commitments,
    Neighbourhood,
    Reveal,
)
from secagg.parameters.conditions import BEACON_ROUNDS
from secagg.session_rules import rules_of
from tests.property.secagg.play import Play, with_body

NAMES = [f"c{i}" for i in range(40)]


def credentials() -> Credentials:
    return Credentials.simulated(NAMES)


def malicious_sparse() -> SecAggPlus:
    return SecAggPlus(threat="malicious", neighbours=10, collusion=0.0, credentials=credentials())


CREDENTIALS = credentials()


class TestRosters:
    def roster(
        self, authority: Identity, names: list[str], serial: int = 1
    ) -> tuple[SignedRoster, dict[str, Identity]]:
        people = {name: Identity.generate(name) for name in names}
        members = [Member(n, "client", p.public) for n, p in people.items()]
        return SignedRoster.sign(Roster.of("test", serial, members), authority), people

    def refused(self, server: Credentials, own: Credentials) -> PolicyRefusal:
        protocol = SecAgg(threat="malicious", credentials=server)
        session = protocol.session(NAMES[:5], 4, 9, random=SystemRandom())
        with pytest.raises(PolicyRefusal, match="signed_roster") as caught:
            SecAgg(threat="malicious", credentials=own).client(
                session, 0, np.zeros(4, np.int64), random=SystemRandom()
            )
        return caught.value

    def test_a_roster_of_another_authority_is_refused(self) -> None:
        authority, impostor = Identity.generate("authority"), Identity.generate("server")
        real, people = self.roster(authority, NAMES[:5])
        fake, fakes = self.roster(impostor, NAMES[:5])
        offered = Credentials(fake, impostor.public, fakes)
        for own in (Credentials(fake, authority.public, people), Credentials(real, authority.public, people)):
            assert "signed_roster" in str(self.refused(offered, own))

    def test_an_old_roster_is_refused(self) -> None:
        authority = Identity.generate("authority")
        old, people = self.roster(authority, NAMES[:5], 1)
        keep = Credentials(old, authority.public, people, least_serial=2)
        assert "older" in str(self.refused(Credentials(old, authority.public, people), keep))

    def test_a_stranger_in_the_cohort_is_refused(self) -> None:
        authority = Identity.generate("authority")
        wide, people = self.roster(authority, NAMES[:5], 2)
        narrow = SignedRoster.sign(Roster("test", 3, wide.roster.members[:4]), authority)
        own = Credentials(narrow, authority.public, people)
        assert "c4" in str(self.refused(Credentials(wide, authority.public, people), own))

    def test_a_client_without_credentials_refuses(self) -> None:
        session = SecAgg(threat="malicious", credentials=credentials()).session(
            NAMES[:5], 4, 9, random=SystemRandom()
        )
        with pytest.raises(PolicyRefusal, match="signed_roster"):
            SecAgg().client(session, 0, np.zeros(4, np.int64), random=SystemRandom())


class TestGraphs:
    """The server cannot choose the graph in the malicious model."""

    def play(self) -> tuple[Play, Message]:
        play = Play(malicious_sparse(), 14)
        return play, play.until(REVEAL)[0]

    def test_a_list_without_the_own_commitment_is_refused(self) -> None:
        play, request = self.play()
        body = read(Commitments, request)
        with pytest.raises(ProtocolViolation, match="own"):
            play.tell(with_body(request, Commitments(body.clients[1:], body.commitments[32:])))
        with pytest.raises(ProtocolViolation, match="own"):
            play.tell(with_body(request, replace(body, commitments=bytes(32) + body.commitments[32:])))

    def test_a_part_that_does_not_match_its_commitment_is_refused(self) -> None:
        play, _ = self.play()
        request = play.trip()[0]
        body = read(Neighbourhood, request)
        for parts in (body.parts[:-32], body.parts[:-32] + bytes(32), b""):
            with pytest.raises(ProtocolViolation):
                play.tell(with_body(request, replace(body, parts=parts)))

    def test_neighbours_of_another_graph_are_refused(self) -> None:
        play, _ = self.play()
        requests = play.trip()
        strange = next(m for m in requests[1:] if m.recipient.number)
        with pytest.raises(PeerError):
            play.tell(with_body(requests[0], read(Neighbourhood, strange)))

    def test_a_withheld_part_ends_the_session_by_name(self) -> None:
        play, _ = self.play()
        with pytest.raises(TooFewSurvivors, match="client 3"):
            play.trip(absent=[3])

    def test_another_part_than_committed_is_refused_by_the_server(self) -> None:
        play, request = self.play()
        answer = play.tell(request)[0]
        with pytest.raises(ProtocolViolation, match="committed"):
            play.hear(with_body(answer, Reveal(bytes(32))))

    def test_a_beacon_fixes_the_graph_whatever_the_server_draws(self) -> None:
        made = [
            SecAggPlus(
                dropout=0.0,
                threat="malicious",
                neighbours=10,
                collusion=0.0,
                credentials=CREDENTIALS,
                beacon=b"x",
            ).session(NAMES, 4, 9, random=SystemRandom())
            for _ in range(2)
        ]

        assert made[0].context != made[1].context
        assert rules_of(made[0]).seed == rules_of(made[1]).seed

    def lit(self, names: list[str], round: int = 1) -> Session:
        """A session that a server made under the beacon, from a roster and a round of its choice."""
        protocol = self.under_a_beacon()
        known = Credentials(CREDENTIALS.roster, CREDENTIALS.authority)  # a server holds no identity
        made = replace(
            MaskParameters.decode(protocol.session(NAMES, 4, 9, random=SystemRandom()).parameters),
            identities=known.keys_of(names),
        )
        session = protocol.session(NAMES, 4, 9, random=SystemRandom())
        return replace(session, roster=tuple(names), round=round, parameters=made.encode())

    def under_a_beacon(self) -> SecAggPlus:
        return SecAggPlus(
            dropout=0.0,
            threat="malicious",
            neighbours=10,
            collusion=0.0,
            credentials=CREDENTIALS,
            beacon=b"x",
        )

    def enter(self, session: Session) -> None:
        self.under_a_beacon().client(session, 0, np.zeros(4, np.int64), random=SystemRandom())

    def test_no_subset_of_the_roster_may_be_chosen_after_the_beacon(self) -> None:
        """A server that leaves one of twenty clients away each time would have the pick of twenty graphs."""
        self.enter(self.lit(NAMES))
        for left_away in range(1, len(NAMES)):
            some = [name for at, name in enumerate(NAMES) if at != left_away]
            with pytest.raises(
                PolicyRefusal, match="beacon: the graph is drawn over the whole signed roster"
            ):
                self.enter(self.lit(some))
        with pytest.raises(PolicyRefusal, match="name them all"):
            self.under_a_beacon().session(NAMES[:-1], 4, 9, random=SystemRandom())

    def test_no_order_of_the_roster_makes_another_graph(self) -> None:
        seen = set()
        for shift in range(len(NAMES)):
            order = NAMES[shift:] + NAMES[:shift]
            session = self.lit(order)
            rules = rules_of(session)
            ring = [order[i] for i in rules.circle(rules.seed).tolist()]
            seen.add(tuple(ring))
            self.enter(session)
        assert len(seen) == 1

    def test_a_round_out_of_a_beacons_reach_is_refused(self) -> None:
        self.enter(self.lit(NAMES, BEACON_ROUNDS))
        with pytest.raises(Misuse, match="a beacon serves rounds up to"):
            self.enter(self.lit(NAMES, BEACON_ROUNDS + 1))

    @pytest.mark.parametrize("offered, known", [(b"ground", b""), (b"ground", b"x"), (b"", b"x")])
    def test_a_beacon_of_the_servers_own_is_refused(self, offered: bytes, known: bytes) -> None:
        made, own = (
            SecAggPlus(
                dropout=0.0,
                threat="malicious",
                neighbours=10,
                collusion=0.0,
                credentials=CREDENTIALS,
                beacon=b,
            )
            for b in (offered, known)
        )
        session = made.session(NAMES, 4, 9, random=SystemRandom())
        with pytest.raises(PolicyRefusal, match="beacon"):
            own.client(session, 0, np.zeros(4, np.int64), random=SystemRandom())
