"""`zmtile doctor`: what there is to compute with."""

from __future__ import annotations

import click

__all__ = ["doctor"]

EPILOG = """\
Exit codes:

\b
  0    told; a GPU, if there is one, computes what the CPU does
  1    the GPU computes something else
  5    the GPU failed
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, and nothing else.")
def doctor(as_json: bool) -> int:
    """Tell what there is to compute with, and try the GPU on a small made-up group."""
    from zmtile.console import say
    from zmtile.gpu.doctor import as_text, examine
    from zmtile.jsonout import SCHEMA_VERSION, dumps, plain

    found = examine()
    say(dumps({"schema_version": SCHEMA_VERSION} | plain(found)) if as_json else as_text(found))
    return found.exit_code
