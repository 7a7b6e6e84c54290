"""The corpus on disk: the format, and how prepare writes it."""
