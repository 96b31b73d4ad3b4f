"""The few modules of ComfyUI's `comfy` package that the stand-in and custom nodes import."""
