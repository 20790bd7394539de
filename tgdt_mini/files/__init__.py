"""The ground floor:
files that are written whole or not at all, arrays that are mapped, and where things lie.
"""
