"""Removing jobs: nothing but ``jobs/<job>``, at once for everyone who looks, and repeatable.

A job is first moved to ``.morpheus/trash/``: it vanishes as a whole, and an upload at the same moment
makes it anew.
"""

import errno
import os
import secrets
import shutil
from typing import Final

from morpheus_boot.errors import MorpheusError, storage_error
from morpheus_boot.jobs.folder import FOLDER, is_folder, names_in, open_below, open_or_make
from morpheus_boot.jobs.names import JobId
from morpheus_boot.volume.layout import Layout

# What the sweep of old jobs moved there is its own to settle: it may be put back.
EXPIRED: Final = ".expired"
# Uploads that land while a folder is emptied make it full again; each round removes them too.
_ROUNDS: Final = 10


def remove_job(layout: Layout, job: JobId) -> bool:
    """Removes ``job`` with all its files; False where there was none. A link in its place goes, not its target.

    Raises:
        StorageFailed: the volume fails; what is left goes with the next call or start.
    """
    try:
        jobs = open_below(layout, layout.way(layout.jobs), FOLDER)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise removal_failed(layout, job.text, error) from error
    try:
        return _remove(layout, jobs, job.text)
    except OSError as error:
        raise removal_failed(layout, job.text, error) from error
    finally:
        os.close(jobs)


def empty_trash(layout: Layout) -> int:
    """Removes what earlier removals left there; returns how many jobs. Raises StorageFailed."""
    try:
        trash = open_below(layout, layout.way(layout.trash), FOLDER)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise removal_failed(layout, "trash", error) from error
    try:
        return sum(
            remove_tree(trash, name) for name in names_in(trash) if not name.endswith(EXPIRED)
        )
    except OSError as error:
        raise removal_failed(layout, "trash", error) from error
    finally:
        os.close(trash)


def removal_failed(layout: Layout, name: str, error: OSError) -> MorpheusError:
    """What the volume said while ``name`` was removed."""
    return storage_error(name, layout.jobs / name, error)


def move_to_trash(jobs: int, trash: int, name: str, suffix: str = "") -> str:
    """Moves a job out of the open folder ``jobs``; returns its name in ``trash``. Raises OSError."""
    moved = f"{name}.{secrets.token_hex(6)}{suffix}"
    os.rename(name, moved, src_dir_fd=jobs, dst_dir_fd=trash)
    return moved


def remove_tree(parent: int, name: str) -> bool:
    """Removes ``name`` from the open folder ``parent``, following no link; False where it was not there.

    Raises OSError.
    """
    failure = OSError(errno.ENOTEMPTY, "it fills as it is emptied")
    for again in range(_ROUNDS):
        try:
            # Safe against links put in its way since Python 3.3 (rmtree.avoids_symlink_attacks).
            shutil.rmtree(name, dir_fd=parent)
        except OSError as error:
            failure = error
            if not _exists(parent, name):
                return again > 0
            if not is_folder(parent, name):
                os.unlink(name, dir_fd=parent)
                return True
        else:
            return True
    raise failure


def _remove(layout: Layout, jobs: int, name: str) -> bool:
    try:
        trash = open_or_make(layout, layout.way(layout.trash))
        try:
            return remove_tree(trash, move_to_trash(jobs, trash, name))
        finally:
            os.close(trash)
    except FileNotFoundError:
        return False
    except OSError:
        # MooseFS refuses even a rename where the quota is used up, and room is what this may be about.
        return remove_tree(jobs, name)


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
