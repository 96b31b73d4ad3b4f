"""What the services print, as lines of our log."""

import logging

from morpheus_boot.log import Entry, for_no_terminal, parse_json_line, parse_terminal_line
from morpheus_boot.run.services import FILE_SERVER
from morpheus_boot.serverless import QUEUE, read_sdk_line


def log_line(service: str, line: str) -> None:
    """Logs a line that ``service`` printed, under its name and with the level that it has there."""
    logger = logging.getLogger(f"morpheus.{service}")
    entry = _entry(service, line)
    if entry is None:
        logger.info("%s", for_no_terminal(line))
    else:
        logger.log(entry.level, "%s", entry.message)


def _entry(service: str, line: str) -> Entry | None:
    """The file server and RunPod's SDK log in JSON; ComfyUI's lines are text for a terminal."""
    if service == FILE_SERVER:
        return parse_json_line(line)
    return read_sdk_line(line) if service == QUEUE else parse_terminal_line(line)
