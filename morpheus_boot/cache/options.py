"""Who fills, with which tokens, how patiently. Every wait is an argument, so that no test waits for one."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from morpheus_boot.cache.manifests import EndpointManifest
from morpheus_boot.config.redact import Secret
from morpheus_boot.config.settings import LOCK_TIMEOUT_S
from morpheus_boot.manifest import CIVITAI_HOSTS
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.mount import Volume
from morpheus_boot.work.backoff import Backoff


@dataclass(frozen=True, slots=True)
class Credentials:
    """The tokens, each for its own service alone."""

    hf_token: Secret | None = None
    hf_endpoint: str = "https://huggingface.co"
    civitai_token: Secret | None = None
    civitai_endpoint: str = "https://civitai.com"

    def for_host(self, host: str) -> Secret | None:
        """The token that may go to ``host``."""
        if host in CIVITAI_HOSTS:
            return self.civitai_token
        return self.hf_token if host == urlsplit(self.hf_endpoint).hostname else None


@dataclass(frozen=True, slots=True)
class LockTimes:
    """``beat_s``: between heartbeats; ``silence_s``: after which a holder counts as lost.

    ``deadline_s``: after which a wait for one model ends in an error; ``poll_s``: between two looks.
    """

    beat_s: float = 3.0
    silence_s: float = 30.0
    deadline_s: float = LOCK_TIMEOUT_S
    poll_s: float = 0.5


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """How bytes are moved.

    ``sync_bytes``: received bytes that may not be synced yet, the most that a kill can cost.
    ``chunk_bytes``: the storage's own unit (MooseFS: 64 MiB); one that a lost host was writing to can't be read
    for two minutes, so whoever takes over copies whole ones.
    ``span_bytes``: what one request asks for. ``models``: how many are fetched at once; ``connections``: for all
    of them together, and ``connections_a_model`` at most for one. Where an origin refuses some, half as many are
    left to it; after each ``limited_s`` without a refusal twice as many are tried.
    ``connect_s``, ``read_s``: the time-outs of a socket. A connection that brings less than
    ``floor_bytes_per_s`` over ``window_s`` is ended, and the rest of its span asked for anew.
    ``retry``: its deadline is one without ``progress_bytes`` of new bytes.
    """

    sync_bytes: int = 128 * 1024 * 1024
    chunk_bytes: int = 64 * 1024 * 1024
    span_bytes: int = 8 * 1024 * 1024
    models: int = 3
    connections: int = 32
    connections_a_model: int = 16
    limited_s: float = 10.0
    connect_s: float = 10.0
    read_s: float = 30.0
    floor_bytes_per_s: float = 16 * 1024
    window_s: float = 15.0
    retry: Backoff = Backoff()
    progress_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FillOptions:
    """What every fill of this worker shares."""

    worker: str
    credentials: Credentials = Credentials()
    lock_times: LockTimes = LockTimes()
    transfer_times: TransferTimes = TransferTimes()
    hub_roots: tuple[Path, ...] = ()
    replace_in_place: bool = False


@dataclass(frozen=True, slots=True)
class FillContext:
    """What all steps of one fill share.

    ``stopping`` ends it before its time; ``report`` is told how each model stands, by one thread at a time.
    ``manifest``: what this endpoint names, where it is to be compared with what others do.
    """

    volume: Volume
    options: FillOptions
    stopping: threading.Event
    report: Callable[[ModelState], None]
    manifest: EndpointManifest | None = None

    @property
    def layout(self) -> Layout:
        """Where everything lies on the volume."""
        return self.volume.layout
