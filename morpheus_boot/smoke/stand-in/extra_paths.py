"""Reads `--extra-model-paths-config` files: sections of folder names with one place a line."""

import logging
import os
from pathlib import Path

import folder_paths
import yaml


def load_extra_path_config(config: Path) -> None:
    """Adds the places that ``config`` names; `custom_nodes` is a folder like any other."""
    for section in (yaml.safe_load(config.read_text()) or {}).values():
        if section is None:
            continue
        is_default = bool(section.pop("is_default", False))
        base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "")))
        for folder, places in section.items():
            for place in filter(None, places.split("\n")):
                path = os.path.normpath(config.parent.absolute() / base / place)
                logging.info("Adding extra search path %s %s", folder, path)
                folder_paths.add_model_folder_path(folder, path, is_default)
