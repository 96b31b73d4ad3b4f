"""The repository's workflows/ on the volume, where the file server reads them."""

import logging
from pathlib import Path
from typing import Final

from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.boot")


def copy_workflows(source: Path, layout: Layout) -> None:
    """Brings the volume's copies up to date, each whole; those that are the same are left alone.

    A volume that can't be written keeps what it has, with a warning.
    """
    for workflow in sorted(source.glob("*.json")):
        copy = layout.workflows / workflow.name
        try:
            content = workflow.read_bytes()
            if not copy.is_file() or copy.read_bytes() != content:
                write_whole(copy, content)
        except OSError as error:
            kept = "the older copy stays" if copy.is_file() else "jobs can't name it"
            _LOG.warning("workflow %s can't be written (%s): %s", copy, error.strerror, kept)
