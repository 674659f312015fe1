"""The search over schedules: a rule-based state machine around a server that goes back (`forks`).

Sessions of the same and of other updates run side by side, on one set-up where keys are reused; parties are real
(`playing`). What does not belong here: requests that no honest server would make (`two_views`).
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from protocols.audit.prop import Finding
from protocols.audit.search.forks import CLIENTS, ServerCourse, World
from protocols.errors import SecAggError
from protocols.kernel import Party

STEPS, EXAMPLES, SESSIONS = 10, 100, 3
NUMBERS = st.integers(0, 15)
FEW = st.sets(st.integers(0, CLIENTS - 1), min_size=1, max_size=CLIENTS // 2)
SOME = st.sets(st.integers(0, CLIENTS - 1), max_size=CLIENTS // 2)


class Schedules(RuleBasedStateMachine):
    """Steps of a server that cheats. Once something is found, the rest is passed over: a schedule is not played twice
    alike, for its keys are fresh, so that nothing could be shrunk.
    """

    make: Callable[[], World]
    found: list[Finding]
    done: Counter[str]

    @initialize()
    def open(self) -> None:
        self.world = None if self.found else self.make()
        self.done["schedules"] += not self.found

    def _do(self, act: Callable[[World], object]) -> None:
        if self.world is None or self.found:
            return
        try:
            act(self.world)
            self.done["steps"] += 1
        except Finding as finding:
            self.found.append(finding)

    @rule(number=NUMBERS, absent=SOME, grafted=st.booleans())
    def advance(self, number: int, absent: set[int], grafted: bool) -> None:
        """One stage, without some, or with what they answered in another session."""
        self._do(lambda world: world.advance(world.run(number), absent, grafted and len(world.tables) > 1))

    @rule(number=NUMBERS, absent=FEW, side=FEW)
    def two_views(self, number: int, absent: set[int], side: set[int]) -> None:
        """Two courses from one state to the end, honest parties divided between them."""
        self._do(lambda world: world.two_views(world.run(number), absent, side))

    @rule(number=NUMBERS)
    def finish(self, number: int) -> None:
        """To the end, with everybody."""

        def act(world: World) -> None:
            run: ServerCourse | None = world.run(number)
            while run is not None:
                run = world.advance(run, set(), False)

        self._do(act)

    @rule(number=st.integers(0, 1 << 10))
    def again(self, number: int) -> None:
        """An earlier request once more."""
        self._do(lambda world: world.again(number))

    @rule()
    def begin(self) -> None:
        """A second session of the same updates, and a third of others: of the next rounds."""

        def act(world: World) -> None:
            if len(world.tables) < SESSIONS:
                with contextlib.suppress(SecAggError):  # parties refuse to join it now
                    world.begin()

        self._do(act)


def search(subject: Any, corrupt: frozenset[Party], examples: int = EXAMPLES) -> str:
    """Search; return what was examined, in words. Raises Finding."""
    found: list[Finding] = []
    done: Counter[str] = Counter()
    told = {"make": staticmethod(lambda: World(subject, corrupt)), "found": found, "done": done}
    chosen = settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, database=None, verbosity=Verbosity.quiet,
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck), derandomize=True,
    )  # fmt: skip
    run_state_machine_as_test(type("Schedules", (Schedules,), told), settings=chosen)
    if found:
        raise found[0]
    who = ", ".join(sorted(map(str, corrupt))) or "nobody"
    return (
        f"{done['schedules']} schedules of {CLIENTS} clients, {done['steps']} steps in all, corrupt: {who}. "
        f"Not examined: requests that no honest server makes, more than {SESSIONS} sessions."
    )
