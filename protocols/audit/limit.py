"""A limit on the seconds that a call may take. No property lives here."""

import gc
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_AGAIN = 0.5
"""Seconds until an alarm rings again: a call may catch what it raises."""
_SOON = 1e-3
"""Seconds until it rings again where what it raises would be lost."""


class Hung(BaseException):
    """A call took longer than its limit. Not an Exception: neither the call itself nor hypothesis may catch it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it gave no answer within {seconds:g} s")


class OutOfTime(Hung):
    """An audit, not a session, took longer than it may."""


def limited(call: Callable[[], Any], seconds: float, error: type[Hung] = Hung) -> Any:
    """Return what `call` returns, or raise `error` after `seconds`. Limits nest: the earlier one holds.

    On the main thread an alarm interrupts the call. Elsewhere, and where there are no alarms, the call runs on a
    thread of its own, which is left behind.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        return _with_alarm(call, seconds, error)
    return _on_a_thread(call, seconds, error)


def _with_alarm(call: Callable[[], Any], seconds: float, error: type[Hung]) -> Any:
    def ring(number: int, frame: FrameType | None) -> None:
        if not _is_lost(frame):
            raise error(seconds)
        signal.setitimer(signal.ITIMER_REAL, _SOON, _AGAIN)

    before, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < before <= seconds:  # one around this call rings first
        return call()
    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        return call()
    finally:
        left = max(before - (time.monotonic() - began), 1e-3) if before else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, _AGAIN)


def _is_lost(frame: FrameType | None) -> bool:
    """Whether what is raised here reaches nobody: Python runs a destructor, tells a weak reference that its object is
    gone (as the standard library's own are told), or tells that it collects garbage.
    """
    told = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        weak = frame.f_globals.get("__name__") in ("_weakrefset", "weakref")
        if weak or frame.f_code.co_name == "__del__" or frame.f_code in told:
            return True
        frame = frame.f_back
    return False


def _on_a_thread(call: Callable[[], Any], seconds: float, error: type[Hung]) -> Any:
    given: list[Any] = []
    raised: list[BaseException] = []

    def go() -> None:
        try:
            given.append(call())
        except BaseException as problem:  # it is raised again where it was asked for
            raised.append(problem)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not given:
        raise error(seconds)
    return given[0]
