"""The explorer: ask, move the two settings of a search, see hits move and where words look.

One piece of code for two places: a widget in a notebook, and a local page by `tgdt-mini app`. What
it knows is in `explorer.py`, how it looks in `page.py` and `widget.py`, how it is served in
`server.py`. It searches by a `Retriever`, and has no search of its own.
"""
