"""Renders what the cache reports: into the state document at once, into the log in lines a person can follow."""

import logging
import time
from collections.abc import Callable
from typing import Final

from morpheus_boot.report.state import ModelStage, ModelState
from morpheus_boot.volume.mount import size_text

_LOG: Final = logging.getLogger("morpheus.cache")
_LINE_EVERY_S: Final = 10.0


class Progress:
    """Called with each ModelState; from one thread at a time."""

    def __init__(
        self,
        put_model: Callable[[ModelState], None] = lambda _model: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._put_model = put_model
        self._clock = clock
        self._last: dict[str, tuple[ModelStage, str]] = {}
        self._said_at: dict[str, float] = {}

    def __call__(self, model: ModelState) -> None:
        """Takes one report."""
        self._put_model(model)
        now = self._clock()
        # A transfer's trouble may be another one each time.
        detail = "" if model.stage is ModelStage.FETCHING else model.detail
        if self._last.get(model.path) != (model.stage, detail):
            self._last[model.path] = (model.stage, detail)
        elif now - self._said_at[model.path] < _LINE_EVERY_S:
            return
        self._said_at[model.path] = now
        self._say(model)

    def _say(self, model: ModelState) -> None:
        match model.stage:
            case ModelStage.FETCHING if model.done_bytes or model.retries:
                _LOG.info("%s: %s, %s", model.path, _done(model), _pace(model))
            case ModelStage.FETCHING:
                _LOG.info("%s: fetching %s", model.path, size_text(model.size_bytes))
            case ModelStage.WAITING:
                _LOG.info("%s: waiting, %s (%s)", model.path, model.detail, _done(model))
            case ModelStage.PRESENT:
                _LOG.info("%s: present, %s", model.path, size_text(model.size_bytes))
            case ModelStage.FAILED if model.required:
                # The error itself says why, once: at the end of the fill.
                _LOG.info("%s: failed, its error is said at the end", model.path)
            case ModelStage.FAILED:
                pass  # whoever goes on without it says so
            case ModelStage.MISSING:
                _LOG.warning("%s: missing, %s", model.path, model.detail)


class Reading:
    """How far the reading of many files is, in a line now and then."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_bytes = total_bytes
        self._clock = clock
        self._said_at = clock()
        self._begun_bytes = 0
        self._read_bytes = 0

    def begin(self, size_bytes: int) -> None:
        """The next file is read, of ``size_bytes``; the one before is done, whether all of it was read or not."""
        self._read_bytes = self._begun_bytes
        self._begun_bytes += size_bytes

    def __call__(self, count: int) -> None:
        """Takes the number of bytes that were read since the last call."""
        self._read_bytes += count
        now = self._clock()
        if now - self._said_at >= _LINE_EVERY_S:
            self._said_at = now
            done, total = size_text(self._read_bytes), size_text(self._total_bytes)
            _LOG.info("read %s of %s", done, total)


def _pace(model: ModelState) -> str:
    left = "" if model.left_s is None else f", {model.left_s:.0f} s left"
    retries = f", {model.retries} retries ({model.detail})" if model.retries else ""
    return f"{size_text(int(model.rate_bytes_per_s))}/s{left}{retries}"


def _done(model: ModelState) -> str:
    if not model.size_bytes:
        return size_text(model.done_bytes)
    percent = 100 * model.done_bytes // model.size_bytes
    return f"{percent}% of {size_text(model.size_bytes)}"
