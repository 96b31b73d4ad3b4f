"""Our environment, made by the host's Python: the standard library alone."""
