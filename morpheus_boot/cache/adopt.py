"""Takes over a file that the cache did not bring in itself, if it can be shown to be whole and the right one."""

import errno
import logging
from pathlib import Path
from typing import Final

from morpheus_boot.cache.checks import TooShort, complaint, proves_completeness
from morpheus_boot.cache.hub_cache import HubFile
from morpheus_boot.cache.options import FillContext
from morpheus_boot.cache.origins.origin import Resolved
from morpheus_boot.cache.origins.resolutions import Resolutions
from morpheus_boot.cache.planner import Action, CachedModel, Step
from morpheus_boot.cache.reading import sha256_of
from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.errors import MorpheusError, OriginUnavailable
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.layout import Layout

_LOG: Final = logging.getLogger("morpheus.cache")
READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def take_over(step: Step, context: FillContext, resolutions: Resolutions) -> CachedModel | None:
    """The model as a file that is there already, recorded; None where there is none, or not the right one.

    An old script's, an operator's, or one of RunPod's own cache. Its length must be the one in models.yaml or,
    failing that, the origin's; it must pass its check by type; digests that are known must agree. Where the origin
    can't be asked, the type itself must prove completeness.

    Raises:
        OriginUnavailable: the origin can't be asked, and nothing else proves the file to be whole.
        Stopped; OSError.
    """
    if step.action not in (Action.ADOPT, Action.LINK):
        return None
    model, hub = step.model, step.hub
    file = hub.path if hub else step.found or step.file
    # Before it is read: the record is of the file that was found whole.
    stat = file.stat()
    resolved: Resolved | None = None
    digest = hub.sha256 if hub else None
    odd = complaint(file, model.path)
    # A digest of models.yaml, which the file is read for below, is the last word.
    outweighed = hub is None and model.sha256 is not None and not isinstance(odd, TooShort)
    wrong: str | None = None if outweighed else odd
    if wrong is None and (hub or (model.size_bytes is None and model.sha256 is None)):
        resolved = _ask(file, model, resolutions)
    wrong = wrong or _contradiction(model, resolved, stat.st_size, hub)
    if wrong is None and hub is None and model.sha256:
        digest = sha256_of(file, context.stopping)
        wrong = None if digest == model.sha256 else "its SHA-256 is not the one in models.yaml"
    if wrong:
        _LOG.warning("%s: %s can't be taken over: %s", model.path, file, wrong)
        return None
    if odd:
        _LOG.warning("%s: its SHA-256 is the right one, but %s", model.path, odd)
    if step.found is not None:
        step.file.parent.mkdir(parents=True, exist_ok=True)
        step.found.rename(step.file)
    version = resolved.version if resolved else None
    hub_file = _below_root(hub.path, context.layout) if hub else None
    record = Record.of(model, version, stat, digest, by=context.options.worker, hub_file=hub_file)
    _write(record, context.layout)
    _LOG.info("%s: taken over, %s", model.path, step.reason)
    return CachedModel(model, step.file, hash_later=digest is None and hub is None)


def _ask(file: Path, model: ModelSpec, resolutions: Resolutions) -> Resolved | None:
    try:
        return resolutions.of(model)
    except MorpheusError as error:
        if model.size_bytes is None and not proves_completeness(file, model.path):
            raise OriginUnavailable(
                model.path,
                f"a file is there, but whether it is whole only its origin knows, and: {error.cause}",
                "give its size and sha256 in models.yaml, or make the origin reachable",
            ) from error
        _LOG.warning("%s: taken as it is, its origin can't be asked: %s", model.path, error.cause)
        return None


def _contradiction(
    model: ModelSpec, resolved: Resolved | None, size_bytes: int, hub: HubFile | None
) -> str | None:
    """Why the file is another one than models.yaml and the origin mean, as far as that shows unread; or None."""
    version = resolved.version if resolved else None
    for expected in (model.size_bytes, version.size_bytes if version else None):
        if expected not in (None, size_bytes):
            return f"it has {size_bytes} bytes instead of {expected}"
    if hub is None:
        return None
    digests = {model.sha256, version.sha256 if version else None} - {None}
    if hub.sha256 and digests - {hub.sha256}:
        return f"its SHA-256 is {hub.sha256}"
    if resolved and resolved.commit != hub.commit and hub.sha256 not in digests:
        return f"it is of commit {hub.commit}, the origin has {resolved.commit}"
    return None


def _write(record: Record, layout: Layout) -> None:
    try:
        write_record(layout, record)
    except OSError as error:
        # What is there is whole, so that a read-only volume boots; each boot asks again.
        if error.errno not in READ_ONLY:
            raise
        _LOG.warning("%s: not recorded, the volume is not writable", record.path)


def _below_root(path: Path, layout: Layout) -> str:
    # Other workers may see the same volume under another path.
    return str(path.relative_to(layout.root) if path.is_relative_to(layout.root) else path)
