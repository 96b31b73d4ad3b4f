"""ComfyUI-Manager, where someone lists it: offline, and unable to change what the boot has put together."""

import configparser
import io
from pathlib import Path
from typing import Final

from morpheus_boot.volume.publish import write_whole

# docs.comfy.org, "Manager configuration": offline makes no connection; strong allows neither installing, updating,
# restoring nor restarting.
_SETTINGS: Final = {
    "network_mode": "offline",
    "security_level": "strong",
    "db_mode": "cache",
    "always_lazy_install": "False",
    "allow_git_url_install": "False",
    "allow_pip_install": "False",
    "bypass_ssl": "False",
}


def is_manager(tree: Path) -> bool:
    """Whether the custom node in ``tree`` is ComfyUI-Manager, whatever its folder is called."""
    return (tree / "glob" / "manager_core.py").is_file() and (tree / "cm-cli.py").is_file()


def configure_manager(tree: Path, comfyui: Path, user: Path) -> Path:
    """Writes the settings into the config.ini that the Manager in ``tree`` reads; others in it stay.

    ``user`` is ComfyUI's user directory. From 3.38 on the Manager looks in ``__manager`` where ComfyUI keeps that
    closed to its own routes (0.3.76 and later), else in ``default/ComfyUI-Manager`` (its manager_migration.py).
    Returns the file. Raises OSError.
    """
    closed = "get_system_user_directory" in _text(comfyui / "folder_paths.py")
    knows = (tree / "glob" / "manager_migration.py").is_file()
    folder = user / "__manager" if closed and knows else user / "default" / "ComfyUI-Manager"
    file = folder / "config.ini"
    config = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        config.read_string(_text(file))
    except configparser.Error:
        config.clear()
    if not config.has_section("default"):
        config.add_section("default")
    config["default"].update(_SETTINGS)
    text = io.StringIO()
    config.write(text)
    write_whole(file, text.getvalue().encode(), durable=False)
    return file


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
