"""The library `datasets` without its progress bars and warnings."""

import warnings
from contextlib import contextmanager


def import_datasets():
    """The library, imported without its advice about widgets, which a notebook would show."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import datasets
    return datasets


@contextmanager
def no_bars(datasets):
    """Inside the `with` block, `datasets` shows no progress bar."""
    bars = datasets.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
