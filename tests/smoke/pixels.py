"""The stand-in's reader of PNG files, for tests: its folder is no package of ours."""

import importlib.util
import sys
from functools import cache
from types import ModuleType

from tests.smoke.running import SOURCE


@cache
def stand_in_png() -> ModuleType:
    """The module png.py of the stand-in."""
    spec = importlib.util.spec_from_file_location("stand_in_png", SOURCE / "png.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stand_in_png"] = module
    spec.loader.exec_module(module)
    return module


def pixels(content: bytes) -> tuple[int, int, bytes]:
    """Width, height and the RGB bytes of a PNG file."""
    picture = stand_in_png().decode(content)
    return picture.width, picture.height, picture.rgb
