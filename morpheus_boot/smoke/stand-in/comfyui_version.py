"""The version of ComfyUI that the stand-in behaves like."""

__version__ = "0.38.1"
