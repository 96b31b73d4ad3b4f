"""`smoke`: the whole chain on any machine, with an origin, a volume and, where none is installed, a ComfyUI."""
