"""The library `datasets` without its progress bars and warnings."""

import warnings


def import_datasets():
    """The library, imported without its advice about widgets: in a notebook that would stand in the
    page.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import datasets
    return datasets


class no_bars:
    """No progress bar of `datasets` inside."""

    def __init__(self, datasets):
        self.bars = datasets.utils.logging

    def __enter__(self):
        self.shown = self.bars.is_progress_bar_enabled()
        self.bars.disable_progress_bar()

    def __exit__(self, *_):
        if self.shown:
            self.bars.enable_progress_bar()
