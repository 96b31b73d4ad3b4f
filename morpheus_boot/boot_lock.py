"""One boot a local folder: two would share the state document, our nodes and what ComfyUI is told of both."""

import os
from pathlib import Path
from typing import TextIO

from morpheus_boot.errors import NotSetUp, local_error
from morpheus_boot.volume.flock import try_flock


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
        if not try_flock(file.fileno()):
            file.seek(0)
            pid = file.read()
            file.close()
            raise NotSetUp(
                "boot",
                f"process {pid or 'unknown'} boots and serves with {local_dir} already",
                "stop that one, or set MORPHEUS_LOCAL_DIR and both ports to others for this one",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:
        raise local_error("boot", path, error) from error
    return file
