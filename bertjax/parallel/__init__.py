"""Devices and processes: the mesh, shardings and agreement between processes."""
