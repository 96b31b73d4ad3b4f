"""``import FILE``: turns the old scripts' resource list into models.yaml on stdout."""

import logging
from typing import Final

from morpheus_boot.config.settings import Invocation
from morpheus_boot.manifest.document import read_text
from morpheus_boot.manifest.resources import read_resources
from morpheus_boot.report.stdout import print_text

_LOG: Final = logging.getLogger("morpheus.import")


def run(invocation: Invocation) -> None:
    """Prints models.yaml. Raises ManifestError, or SeveralErrors of them, and then prints nothing."""
    file = invocation.file
    imported = read_resources(str(file), read_text(file, "name a resource list that can be read"))
    for note in imported.notes:
        _LOG.warning("%s line %d %s", file, note.line, note.says)
    print_text(imported.text(file.name))
