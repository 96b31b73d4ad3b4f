"""One file a command; each a function ``run`` that returns when it is done and raises MorpheusError otherwise."""
