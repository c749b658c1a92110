"""Text made by rich: with colours and to the width of the terminal, or plain and wide for files and pipes."""

from __future__ import annotations

import io
import shutil
import sys

from rich.console import Console

from zmtile.console import on_terminal

__all__ = ["RichText"]

LOG_WIDTH = 132  # of what is written to a file or a pipe
WIDE = 400  # of a table there: nobody's screen is the limit


class RichText(Console):
    """A console whose output is taken as text.

    Parameters
    ----------
    wide : bool
        Do not break the lines of a table that goes to a file or a pipe.
    """

    def __init__(self, wide: bool = False) -> None:
        self._text = io.StringIO()
        self.on_terminal = on_terminal(sys.stdout)
        log_width = WIDE if wide else LOG_WIDTH
        super().__init__(
            file=self._text,
            force_terminal=self.on_terminal,
            width=shutil.get_terminal_size().columns if self.on_terminal else log_width,
            color_system="auto" if self.on_terminal else None,
            highlight=False,
            emoji=False,
            markup=False,
        )

    def taken(self) -> str:
        """Return what was printed, without blanks at the ends of lines."""
        return "\n".join(line.rstrip() for line in self._text.getvalue().split("\n")).rstrip()
