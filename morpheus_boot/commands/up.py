"""``up``: the whole boot, then its supervision."""

from morpheus_boot.boot import Boot
from morpheus_boot.config.settings import Invocation


def run(invocation: Invocation) -> None:
    """Boots, and returns when SIGTERM or SIGINT has stopped everything in order."""
    Boot(invocation).up()
