"""morpheus boot: fills a model cache on a shared volume, then runs ComfyUI and a file server."""

__version__ = "0.1.0"
