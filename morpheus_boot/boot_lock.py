"""One boot a local folder: two would share the state document, our nodes and what ComfyUI is told of both."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from morpheus_boot.errors import NotSetUp, local_error


def take_boot_lock(local_dir: Path) -> TextIO:
    """Makes ``local_dir`` and locks it against other boots for as long as the returned file is open.

    Raises:
        NotSetUp: another boot has it; names that process.
        StorageFailed: it can't be written.
    """
    path = local_dir / "boot.lock"
    try:
        local_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise local_error("boot", path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BlockingIOError as error:
        file.seek(0)
        pid = file.read()
        file.close()
        raise NotSetUp(
            "boot",
            f"process {pid or 'unknown'} boots and serves with {local_dir} already",
            "stop that one, or set MORPHEUS_LOCAL_DIR and both ports to others for this one",
        ) from error
    except OSError as error:
        raise local_error("boot", path, error) from error
    return file
