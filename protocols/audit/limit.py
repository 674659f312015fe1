"""A limit on the seconds that a call may take. No property lives here."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Hung(BaseException):
    """A call took longer than its limit. Not an Exception: neither the call itself nor hypothesis may catch it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it gave no answer within {seconds:g} s")


def limited(call: Callable[[], Any], seconds: float) -> Any:
    """Return what `call` returns, or raise Hung after `seconds`.

    On the main thread an alarm interrupts the call. Elsewhere, and where there are no alarms, the call runs on a
    thread of its own, which is left behind.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        return _with_alarm(call, seconds)
    return _on_a_thread(call, seconds)


def _with_alarm(call: Callable[[], Any], seconds: float) -> Any:
    def ring(number: int, frame: FrameType | None) -> None:
        raise Hung(seconds)

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)


def _on_a_thread(call: Callable[[], Any], seconds: float) -> Any:
    given: list[Any] = []
    raised: list[BaseException] = []

    def go() -> None:
        try:
            given.append(call())
        except BaseException as error:  # it is raised again where it was asked for
            raised.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not given:
        raise Hung(seconds)
    return given[0]
