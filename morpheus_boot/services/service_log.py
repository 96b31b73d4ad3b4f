"""What the services print, as lines of our log."""

import logging
from collections.abc import Callable, Mapping

from morpheus_boot.report.log import Entry, for_no_terminal, parse_terminal_line

# How a service's lines are read; None for a line that is not of its form.
Reader = Callable[[str], Entry | None]


def log_line(readers: Mapping[str, Reader], service: str, line: str) -> None:
    """Logs a line that ``service`` printed, under its name and with the level that it has there.

    One that has no reader prints text for a terminal.
    """
    logger = logging.getLogger(f"morpheus.{service}")
    entry = readers.get(service, parse_terminal_line)(line)
    if entry is None:
        logger.info("%s", for_no_terminal(line))
    else:
        logger.log(entry.level, "%s", entry.message)
