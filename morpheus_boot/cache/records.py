"""A record: what the cache knows of one model, written as the last act of bringing it in."""

import os
from dataclasses import dataclass
from pathlib import Path

from morpheus_boot.cache.parts import Version
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import utc_now
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.publish import write_whole


@dataclass(frozen=True, slots=True)
class Record:
    """One cached model. ``sha256`` is None while an adopted file waits for its hash.

    ``expected_sha256`` is what the origin said of such a file, until the hash has been compared with it.

    ``hub_file`` is set where the model lies in RunPod's own Hugging Face cache instead of model_cache/:
    its path relative to the volume's root, or absolute. ``damaged``: a second reading found other bytes, so that
    nobody may adopt the file for whole while its replacement has not come.
    """

    path: str
    origin: str
    etag: str | None
    sha256: str | None
    size_bytes: int
    mtime_ns: int
    recorded_at: str
    by: str
    hub_file: str | None = None
    damaged: bool = False
    expected_sha256: str | None = None

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        version: Version | None,
        stat: os.stat_result,
        sha256: str | None,
        *,
        by: str,
        hub_file: str | None = None,
    ) -> "Record":
        """The record of a model's file; ``version`` is what its origin says, where it was asked."""
        return cls(
            path=model.path,
            origin=model.source.identity,
            etag=version.etag if version else None,
            sha256=sha256,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            recorded_at=utc_now(),
            by=by,
            hub_file=hub_file,
            expected_sha256=version.sha256 if version and sha256 is None else None,
        )


def read_record(layout: Layout, model_path: str) -> Record | None:
    """The record of a model; None where there is none or it can't be read as one (half-written, foreign)."""
    return read_record_file(layout.record(model_path), model_path)


def read_record_file(path: Path, model_path: str | None = None) -> Record | None:
    """The record at ``path``, of ``model_path`` where given. Raises OSError other than not found."""
    try:
        record = from_document(Record, path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if model_path in (None, record.path) else None


def all_records(layout: Layout) -> tuple[Record, ...]:
    """The records of the volume, by path. Raises OSError other than not found."""
    found = (read_record_file(path) for path in layout.records.glob("*.json"))
    return tuple(sorted((r for r in found if r is not None), key=lambda record: record.path))


def write_record(layout: Layout, record: Record) -> None:
    """Publishes a record, durably. Raises OSError."""
    write_whole(layout.record(record.path), to_document(record, indent=1))
