"""The kinds of tasks, one per file: all that depends on what is predicted for an example."""
