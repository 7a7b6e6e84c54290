"""Kinds of tasks, one module each: everything that depends on the type of prediction."""
