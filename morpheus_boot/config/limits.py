"""What one client may ask of the file server.

The boot reads this too: a mistake in it must end the boot, not the file server that it starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from morpheus_boot.config.variables import parse_positive_whole


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes and numbers have variables, the times have none."""

    upload_bytes: int = 20_000_000_000
    job_files: int = 10_000
    form_bytes: int = 64_000
    # RunPod's own limit on a request is 30 MB at most.
    job_bytes: int = 64_000_000
    header_bytes: int = 32_000
    connections: int = 512
    upload_floor_bytes_per_s: int = 1_000
    # The floor is measured over so long, which a lost packet or a phone in a tunnel outlives.
    upload_window_s: float = 20.0
    # So long after its last byte a resumable upload expires, complete or not.
    upload_keeps_s: float = 86_400.0
    # A request's head comes in one packet or two; who takes longer holds a connection for nothing.
    head_s: float = 10.0
    # As nginx's send_timeout: a reader that takes nothing for so long is gone, or has paused its video.
    stall_s: float = 60.0
    # An early answer (401, 413) reaches a client that still sends only if we read on for a while.
    linger_s: float = 5.0


def read_limits(environ: Mapping[str, str]) -> Limits:
    """The limits as ``environ`` sets them. Raises UsageError that names the variable."""

    def number(name: str, default: int) -> int:
        return parse_positive_whole(name, environ.get(name, "").strip() or str(default))

    return Limits(
        upload_bytes=number("MORPHEUS_MAX_UPLOAD_MB", 20_000) * 10**6,
        job_files=number("MORPHEUS_MAX_JOB_FILES", 10_000),
        form_bytes=number("MORPHEUS_MAX_FORM_KB", 64) * 1000,
        header_bytes=number("MORPHEUS_MAX_HEADER_KB", 32) * 1000,
        connections=number("MORPHEUS_MAX_CONNECTIONS", 512),
        upload_floor_bytes_per_s=number("MORPHEUS_MIN_UPLOAD_BYTES_PER_S", 1000),
    )
