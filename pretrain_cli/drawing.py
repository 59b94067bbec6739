"""Draws in matplotlib's own style, whatever a matplotlibrc of the user's, or of the folder that is worked in, says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pretrain_cli.errors import UsageError, first_line


def import_drawing() -> None:
    """Import matplotlib, which takes 0.4 s, and several the first time on a machine, when it lists its fonts.

    Raises:
        UsageError: it can't read its settings.
    """
    try:
        import matplotlib.figure
        import matplotlib.font_manager  # noqa: F401
    except (UnicodeError, OSError) as error:
        raise UsageError(
            f"matplotlib can't be imported: {first_line(error)}.",
            "Check the file matplotlibrc in this folder, and in ~/.config/matplotlib.",
        ) from error


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """While it lasts, figures are drawn by matplotlib's defaults: settings may ask for LaTeX, or for huge fonts.

    The backend stays a notebook's own: a figure that is saved needs none.
    """
    import_drawing()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
