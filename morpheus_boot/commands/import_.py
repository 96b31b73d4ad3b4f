"""``import FILE``: turns the old scripts' resource list into models.yaml on stdout."""

import logging
from typing import Final

from morpheus_boot.errors import ManifestError
from morpheus_boot.invocation import Invocation
from morpheus_boot.manifest.resources import read_resources
from morpheus_boot.report.stdout import print_text

_LOG: Final = logging.getLogger("morpheus.import")


def run(invocation: Invocation) -> None:
    """Prints models.yaml. Raises ManifestError, or SeveralErrors of them, and then prints nothing."""
    file = invocation.file
    try:
        content = file.read_bytes()
    except OSError as error:
        cause = f"can't be read ({(error.strerror or str(error)).lower()})"
        raise ManifestError(str(file), cause, "name a resource list that can be read") from error
    imported = read_resources(str(file), content)
    for left_out in imported.left_out:
        _LOG.warning("%s line %d: left out, %s", file, left_out.line, left_out.reason)
    for credential in imported.credentials:
        _LOG.warning(
            "%s line %d holds a credential, which whoever had this list has: renew it, and set %s to it",
            file,
            credential.line,
            credential.variable,
        )
    print_text(imported.text(file.name))
