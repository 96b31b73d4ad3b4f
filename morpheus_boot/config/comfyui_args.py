"""ComfyUI's arguments that this program sets itself, and how to know one as ComfyUI's argparse does."""

from collections.abc import Iterable
from typing import Final

# A second value would contradict the contract.
OWN_COMFYUI_ARGS: Final = (
    "--listen",
    "--port",
    "--base-directory",
    "--output-directory",
    "--input-directory",
    "--temp-directory",
    "--user-directory",
)


def may_mean(argument: str, options: Iterable[str]) -> bool:
    """Whether ComfyUI may take ``argument`` for one of ``options``: for argparse any unique beginning is the option.

    Which one is unique differs from version to version, so that the shortest counts.
    """
    option = argument.partition("=")[0]
    return len(option) > len("--") and any(whole.startswith(option) for whole in options)
