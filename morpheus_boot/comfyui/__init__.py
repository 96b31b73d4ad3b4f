"""ComfyUI's side: where it is, what it is given, and when it is ready."""
