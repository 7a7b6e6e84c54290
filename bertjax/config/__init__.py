"""Config dataclasses with every setting of a run, their parsing and their validation."""
