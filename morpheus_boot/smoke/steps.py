"""The steps of smoke with their times, and the table that shows them."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from morpheus_boot.errors import MorpheusError, SeveralErrors, all_of

_LOG: Final = logging.getLogger("morpheus.smoke")


@dataclass(frozen=True, slots=True)
class Step:
    """One step that did what it promises."""

    name: str
    seconds: float
    detail: str


class Steps:
    """Times steps one after another."""

    def __init__(self) -> None:
        self._done: list[Step] = []

    @property
    def done(self) -> tuple[Step, ...]:
        """All steps so far, in order."""
        return tuple(self._done)

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[None]:
        """One step; a MorpheusError in it leaves with the step's name in front."""
        begin = time.monotonic()
        try:
            yield
        except MorpheusError as error:
            raise retold(error, before=f"smoke: {name}: ") from error
        done = Step(name, time.monotonic() - begin, detail)
        self._done.append(done)
        _LOG.info("%s: done in %.2f s", name, done.seconds)


def retold(error: MorpheusError, *, before: str = "", after: str = "") -> MorpheusError:
    """The same error, each one where it is several, with more words before its subject or after its cause."""
    if isinstance(error, SeveralErrors):
        return all_of([retold(one, before=before, after=after) for one in error.errors])
    told = type(error)(f"{before}{error.subject}", f"{error.cause}{after}", error.mend)
    told.exit_code = error.exit_code
    return told


def table(steps: Sequence[Step]) -> str:
    """The steps as lines of text, one a step, under a heading."""
    width = max(len(step.name) for step in steps)
    rows = [f"{step.name:<{width}}  {step.seconds:>8.2f}  {step.detail}".rstrip() for step in steps]
    return "\n".join((f"{'step':<{width}}  {'seconds':>8}", *rows))
