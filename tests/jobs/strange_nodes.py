"""Custom nodes whose outputs are no pictures: a copy of this file is loaded into ComfyUI."""

import sys
from pathlib import Path
from typing import Any, ClassVar


class Says:
    """Shows a text."""

    INPUT: ClassVar[dict[str, Any]] = {"required": {"text": ("STRING", {})}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "strange"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.INPUT

    def run(self, text: str) -> dict[str, Any]:
        return {"ui": {"text": [text]}}


class Films:
    """Writes a film and names it, and a sound without a word about it."""

    INPUT: ClassVar[dict[str, Any]] = {"required": {"filename_prefix": ("STRING", {})}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "strange"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.INPUT

    def run(self, filename_prefix: str) -> dict[str, Any]:
        folder_paths: Any = sys.modules["folder_paths"]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), 1, 1
        )
        film = f"{name}_{counter:05}_.mp4"
        Path(folder, film).write_bytes(b"film")
        Path(folder, "a sound.flac").write_bytes(b"sound")
        shown = {"filename": film, "subfolder": subfolder, "type": "output", "format": "video/mp4"}
        return {"ui": {"gifs": [shown]}}


NODE_CLASS_MAPPINGS = {"Says": Says, "Films": Films}
