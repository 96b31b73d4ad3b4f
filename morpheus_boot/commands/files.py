"""``files``: the file server alone, as the gateway to a volume."""

from morpheus_boot.boot import Boot
from morpheus_boot.config.settings import Invocation


def run(invocation: Invocation) -> None:
    """Serves the volume, and returns when SIGTERM or SIGINT has stopped it in order."""
    Boot(invocation).files()
