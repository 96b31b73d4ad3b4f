"""Who fills, with which tokens, how patiently. Every wait is an argument, so that no test waits for one."""

from dataclasses import dataclass
from pathlib import Path

from morpheus_boot.redact import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens, each for its own service alone."""

    hf_token: Secret | None = None
    hf_endpoint: str = "https://huggingface.co"
    civitai_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class LockTimes:
    """``beat_s``: between heartbeats; ``silence_s``: after which a holder counts as lost.

    ``deadline_s``: after which a wait for one model ends in an error; ``poll_s``: between two looks.
    """

    beat_s: float = 3.0
    silence_s: float = 30.0
    deadline_s: float = 3600.0
    poll_s: float = 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff between ``first_s`` and ``most_s``; ``deadline_s`` without a byte of progress ends it."""

    first_s: float = 0.5
    most_s: float = 20.0
    deadline_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """``sync_bytes``: received bytes between two syncs, which is the most that a kill can cost."""

    sync_bytes: int = 64 * 1024 * 1024
    retry: RetryPolicy = RetryPolicy()


@dataclass(frozen=True, slots=True)
class FillOptions:
    """What every fill of this worker shares."""

    worker: str
    credentials: Credentials = Credentials()
    lock_times: LockTimes = LockTimes()
    transfer_times: TransferTimes = TransferTimes()
    hub_roots: tuple[Path, ...] = ()
    replace_in_place: bool = False
