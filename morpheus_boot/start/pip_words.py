"""What pip's version and its words on stderr mean; standard library only."""

import re
from typing import Final

from morpheus_boot.errors import MorpheusError, OriginUnavailable, StorageFailed

CHECK_NETWORK: Final = (
    "check the network and pip's configuration (pip config list), and start again"
)
_BROKEN: Final = "connection broken by "


def is_new_enough(version: str, oldest: tuple[int, int]) -> bool:
    """Whether pip ``version`` is ``oldest`` or a later one."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= oldest


def errors_in(stderr: str) -> list[str]:
    """The lines that pip marks as errors, each on one line without the mark. The last sums up those before it."""
    lines = (" ".join(line.split()) for line in stderr.splitlines())
    return [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]


def machine_error_in(stderr: str, subject: str) -> MorpheusError | None:
    """The error of ours where the machine has failed rather than a package: its disk, its network.

    ``subject`` is what was to be installed.
    """
    if "No space left on device" in stderr:
        return StorageFailed(
            subject,
            "no space is left on the local disk",
            "give the container more disk, or set MORPHEUS_LOCAL_DIR to another local folder",
        )
    # pip names a broken connection in its warnings alone, and ends with a version that it "could not find".
    broken = [line for line in stderr.splitlines() if _BROKEN in line]
    if broken:
        cause = " ".join(broken[-1].partition(_BROKEN)[2].split())
        return OriginUnavailable("package index", f"can't be reached ({cause})", CHECK_NETWORK)
    return None
