"""Origins: where a model comes from. Another one is a module beside these, and a line in origin_of()."""
