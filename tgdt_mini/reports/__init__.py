"""A model judged from every side, and figures of it."""
