"""The ground floor: files that are written whole or not at all, mapped arrays, where things lie."""
