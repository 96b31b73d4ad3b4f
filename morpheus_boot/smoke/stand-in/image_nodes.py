"""Nodes that make, read, scale and write pictures, under the names and inputs of ComfyUI's."""

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import folder_paths
import png
from comfy.cli_args import args
from png import Picture

_MAX_RESOLUTION: Final = 16384

# What a node's INPUT_TYPES answers: required, optional, hidden -> name -> (type, limits).
Inputs = dict[str, dict[str, Any]]


def size_input(default: int, minimum: int = 1) -> tuple[str, dict[str, int]]:
    """A side of a picture, in pixels."""
    return ("INT", {"default": default, "min": minimum, "max": _MAX_RESOLUTION})


class EmptyImage:
    """Pictures of one colour."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "width": size_input(512),
                "height": size_input(512),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFF}),
            }
        }

    def generate(self, width: int, height: int, batch_size: int, color: int) -> tuple[Any, ...]:
        return ([Picture.plain(width, height, color.to_bytes(3, "big"))] * batch_size,)


class LoadImage:
    """A picture from the input directory, or from another one by annotation."""

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        directory = folder_paths.get_input_directory()
        files = [e.name for e in os.scandir(directory) if e.is_file()]
        images = sorted(folder_paths.filter_files_content_types(files, ["image"]))
        return {"required": {"image": (images, {"image_upload": True})}}

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:  # noqa: N802 - ComfyUI's name
        content = Path(folder_paths.get_annotated_filepath(image)).read_bytes()
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:  # noqa: N802 - ComfyUI's name
        if not folder_paths.exists_annotated_filepath(image):
            return f"Invalid image file: {image}"
        return True

    def load_image(self, image: str) -> tuple[Any, ...]:
        picture = png.decode(Path(folder_paths.get_annotated_filepath(image)).read_bytes())
        return ([picture], None)


class ImageScale:
    """Pictures in another size; a side of 0 keeps the proportions."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        methods = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (methods,),
                "width": size_input(512, 0),
                "height": size_input(512, 0),
                "crop": (["disabled", "center"],),
            }
        }

    def upscale(
        self,
        image: Sequence[Picture],
        upscale_method: str,  # noqa: ARG002 - ComfyUI's signature
        width: int,
        height: int,
        crop: str,  # noqa: ARG002 - ComfyUI's signature
    ) -> tuple[Any, ...]:
        first = image[0]
        width = width or max(1, round(first.width * height / first.height)) if height else width
        height = height or max(1, round(first.height * width / first.width)) if width else height
        return ([p.scaled(width, height) if width else p for p in image],)


class SaveImage:
    """Writes pictures below the output directory, never over one that is there."""

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    CATEGORY = "image"
    OUTPUT_NODE = True
    kind: ClassVar[str] = "output"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "images": ("IMAGE",),
                "filename_prefix": ("STRING", {"default": "ComfyUI"}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save_images(
        self,
        images: Sequence[Picture],
        filename_prefix: str,
        prompt: object,
        extra_pnginfo: dict[str, object] | None,
    ) -> dict[str, Any]:
        directory = folder_paths.get_directory_by_type(self.kind) or ""
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, directory, images[0].width, images[0].height
        )
        notes = {"prompt": prompt, **(extra_pnginfo or {})}
        texts = {} if args.disable_metadata else {k: json.dumps(v) for k, v in notes.items()}
        saved = []
        for number, picture in enumerate(images):
            stem = name.replace("%batch_num%", str(number))
            file = f"{stem}_{counter + number:05}_.png"
            Path(folder, file).write_bytes(png.encode(picture, texts))
            saved.append({"filename": file, "subfolder": subfolder, "type": self.kind})
        return {"ui": {"images": saved}}


class PreviewImage(SaveImage):
    """Writes pictures to the temp directory under a name of its own."""

    FUNCTION = "preview_images"
    kind = "temp"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        inputs = SaveImage.INPUT_TYPES()
        return {"required": {"images": ("IMAGE",)}, "hidden": inputs["hidden"]}

    def preview_images(
        self, images: Sequence[Picture], prompt: object, extra_pnginfo: dict[str, object] | None
    ) -> dict[str, Any]:
        prefix = f"ComfyUI_temp_{secrets.token_hex(3)}"
        return self.save_images(images, prefix, prompt, extra_pnginfo)
