"""The log: one line an event on stderr, as text or as a JSON object, with secrets taken out."""

import json
import logging
import re
import sys
import time
from dataclasses import dataclass
from typing import Final, TextIO

from morpheus_boot.config.redact import Redactor

# ECMA-48: control sequences (CSI), strings (OSC and its kind) with their ends, other escapes, then single controls.
_TERMINAL: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_LEVELLED: Final = re.compile(
    r"\[(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL)\] ?(?P<message>.*)", re.DOTALL
)
_LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}


class _Formatter(logging.Formatter):
    """Renders and redacts; the only place where a record becomes text."""

    def __init__(self, log_format: str, redact: Redactor) -> None:
        super().__init__()
        self._json = log_format == "json"
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        message = self._redact(message)
        source = record.name.removeprefix("morpheus.")
        if self._json:
            return json.dumps(
                {
                    "time": at,
                    "level": record.levelname.lower(),
                    "source": source,
                    "message": message,
                },
                ensure_ascii=False,
            )
        level = "" if record.levelno < logging.WARNING else f"{record.levelname}: "
        return f"{at} {source:<10} {level}{message}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log in JSON, as another process of ours wrote it; ``level`` is logging's number."""

    level: int
    message: str


def parse_json_line(line: str) -> Entry | None:
    """The entry that a line of our JSON log holds; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        document = json.loads(line)
        return Entry(logging.getLevelNamesMapping()[document["level"].upper()], document["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def for_no_terminal(line: str) -> str:
    """``line`` without what only a terminal understands: colours, titles, links, bells."""
    return _TERMINAL.sub("", line)


def parse_terminal_line(line: str) -> Entry | None:
    """The entry of a line that begins with its level, as a newer ComfyUI's do; None for any other line."""
    found = _LEVELLED.fullmatch(for_no_terminal(line))
    if found is None:
        return None
    return Entry(logging.getLevelNamesMapping()[found["level"]], found["message"])


def set_up_log(
    log_format: str, verbosity: int, redact: Redactor, stream: TextIO | None = None
) -> None:
    """Sends all of ``morpheus.*`` to ``stream`` (stderr). ``verbosity``: -1 quiet, 0, 1 with debug lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(log_format, redact))
    logger = logging.getLogger("morpheus")
    logger.handlers[:] = [handler]
    logger.setLevel(_LEVELS[max(-1, min(1, verbosity))])
    logger.propagate = False
