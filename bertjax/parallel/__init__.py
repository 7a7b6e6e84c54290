"""Devices and processes: the mesh, shardings, collective agreement."""
