"""Parts of models, and their journals."""
