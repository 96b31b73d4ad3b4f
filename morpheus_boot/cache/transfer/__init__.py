"""The engine: moves bytes from an origin into a part."""
