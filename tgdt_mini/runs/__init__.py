"""Whole runs, put together from the rooms: on drawn scenes, on photographs, all ablations."""
