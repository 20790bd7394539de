"""Whole runs, put together from the rooms:
on the drawn scenes, on photographs, and of all ablations.
"""
