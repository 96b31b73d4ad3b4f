"""What runs in a node can say how far it is, and learns there that it was interrupted."""

import threading
from collections.abc import Callable
from typing import Final


class Interrupted(Exception):
    """A client asked to stop the running prompt."""


class Progress:
    """Between the one thread that runs nodes and the server."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()
        # Set by the executor: gets (value, maximum) of the node that runs.
        self.report: Callable[[int, int], None] = lambda _value, _maximum: None

    def interrupt(self, *, wanted: bool) -> None:
        """Asks for an interruption, or forgets an earlier one."""
        if wanted:
            self._interrupted.set()
        else:
            self._interrupted.clear()

    def check(self) -> None:
        """Raises Interrupted once for each interruption asked for."""
        if self._interrupted.is_set():
            self._interrupted.clear()
            raise Interrupted

    def step(self, value: int, maximum: int) -> None:
        """One step of a node is done. Raises Interrupted."""
        self.check()
        self.report(value, maximum)


progress: Final = Progress()
