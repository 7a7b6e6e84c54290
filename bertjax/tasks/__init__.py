"""Downstream tasks: their data's formats in, their official scores out."""
