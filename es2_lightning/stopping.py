"""Being asked to stop: SIGTERM and SIGUSR1, as a cluster sends them before it takes a machine away.

At once where nothing would be lost; while training, at the end of an optimizer step, once a
checkpoint is written. Lightning's own handlers save where the signal finds them, which may be in
the middle of an update.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Stopped(SystemExit):
    """A run was asked to stop, and did. No failure: what handles failures does not see it.

    The exit status is what a shell gives a command that the signal ended.

    Args:
        signum: The signal.
        saved: What it left, the rest of a sentence; empty where there was nothing to save.
    """

    def __init__(self, signum: int, saved: str = "") -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.saved = saved

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.signum).name}{self.saved and ' '}{self.saved}."


class StopSignals:
    """The signals of this process.

    Attributes:
        received: The last one that came; None: none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._heeded = False
        self._patient = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Raises `Stopped` inside the `with` when a signal comes, or notes it while patient.

        Outside of the main thread, where Python has no signals, it does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.received, self._heeded, self._patient = None, True, False
        self._listen()
        try:
            yield
        finally:
            self._heeded = False
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def be_patient(self) -> None:
        """From now on a signal is only noted, for whoever called this to ask for.

        Takes the signals back, if somebody else handles them by now.
        """
        self._patient = True
        if self._heeded:
            self._listen()

    def stop_being_patient(self) -> None:
        """From now on a signal stops the run at once."""
        self._patient = False

    def _listen(self) -> None:
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        if not self._patient:
            raise Stopped(signum)


stop_signals = StopSignals()
"""Those of this process; outside of `heeded` none is ever received."""
