"""The volume: what it is, whether it can be written and locked, and whether what is missing fits."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from morpheus_boot.doctor.check import Finding, Patient, error, errors_of, ok, warning
from morpheus_boot.errors import NotSetUp, storage_error
from morpheus_boot.volume.flock import try_flock
from morpheus_boot.volume.mount import Volume, size_text


def look_at_mount(patient: Patient) -> Iterator[Finding]:
    """Which directory it is, on what mount, and what can be done there. Raises NotSetUp."""
    volume = patient.volume.result()
    where = f"{volume.root} ({volume.mount.kind} at {volume.mount.point})"
    if volume.mount.is_network:
        yield ok("volume", where)
    else:
        yield warning(
            "volume",
            f"{where} is a disk of this machine, which no other worker sees",
            "fine for a trial; on RunPod attach a network volume",
        )
    if not volume.root.exists():
        yield ok("volume", "its directory is not there yet: a boot makes it")
        return
    yield from _written_and_locked(volume)


def _written_and_locked(volume: Volume) -> Iterator[Finding]:
    ours = volume.layout.ours
    folder = ours if ours.is_dir() else volume.root
    probe = folder / f"doctor-{secrets.token_hex(6)}"
    try:
        excludes = _write_and_lock(probe)
    except OSError as failure:
        # A boot whose models are all there gets by, so whether that is an error depends on them.
        found = errors_of("volume", storage_error("volume", folder, failure))
        read_only = os.statvfs(volume.root).f_flag & os.ST_RDONLY
        yield from (warning(f.check, f.says, f.mend) for f in found) if read_only else found
        return
    if excludes:
        yield ok("volume", "it can be written, and a lock keeps others out")
    else:
        yield warning(
            "volume",
            "its locks keep nobody out",
            "mount it with flock; until then workers may fetch a model twice",
        )


def _write_and_lock(probe: Path) -> bool:
    """Whether a flock on ``probe``, which is made, synced and removed, keeps a second one out. Raises OSError."""
    with ExitStack() as held:
        held.callback(probe.unlink, missing_ok=True)
        first = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        held.callback(os.close, first)
        os.write(first, b"doctor")
        # A quota that is used up may show only here (facts of MooseFS: a successful write means nothing).
        os.fsync(first)
        second = os.open(probe, os.O_RDWR)
        held.callback(os.close, second)
        return try_flock(first) and not try_flock(second)


def look_at_room(patient: Patient) -> Iterator[Finding]:
    """What is used, by jobs too, and whether the missing models fit, as far as their sizes are known unasked."""
    try:
        volume = patient.volume.result()
    except NotSetUp:
        yield warning("room", "not looked at: there is no volume", "see volume")
        return
    found = patient.survey.result()
    room = found.look_for_room()
    asked = f", {room.unknown} more of a size that `plan` asks for" if room.unknown else ""
    known = size_text(room.missing_bytes)
    missing = f"models to fetch: {len(found.wanted)} ({known}{asked})"
    if not room.fits:
        mend = "enlarge the volume, or run gc"
        yield error("room", f"{missing}, which don't fit: {room.summary}", mend)
    else:
        yield ok("room", f"{missing}; {room.summary}")
    if volume.size_bytes is None and volume.mount.is_network:
        yield warning(
            "room",
            "how much was bought is not known: the file system shows the whole cluster's",
            "set volume.size_gb in models.yaml, or MORPHEUS_VOLUME_GB",
        )
