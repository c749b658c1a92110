"""`zmtile config`: where the values of the options come from."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.errors import UsageError

__all__ = ["config"]

EPILOG = """\
Of the ways to give an option, the first that does wins:

\b
  1. the command line            --kappa 3 2.5
  2. the environment             ZMTILE_BUILD_KAPPA="3 2.5"
  3. the file of --config        [build], below it kappa = [3, 2.5]
     or of ZMTILE_CONFIG
  4. the user's own file         the same
  5. the program's default
"""


@click.group(epilog=EPILOG, invoke_without_command=True)
@click.pass_context
def config(ctx: click.Context) -> int:
    """Tell where the values of options come from."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
    return UsageError.exit_code


SHOW_EPILOG = """\
Examples:

\b
  zmtile config show
  zmtile config show build --config zmtile.toml
  zmtile config show --json

Exit codes:

\b
  0    told
  2    usage, or a file or a variable that holds what no option takes
"""


@config.command(epilog=SHOW_EPILOG)
@click.argument("commands", nargs=-1, metavar="[COMMAND]...")
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="ZMTILE_CONFIG",
    help="Take options from this TOML file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the values as JSON, and nothing else.")
@click.pass_context
def show(ctx: click.Context, commands: tuple[str, ...], path: Path | None, as_json: bool) -> int:
    """Show the value of every option of the COMMANDs (all, if none is named), and who says it."""
    from zmtile.configtable import as_text, values_of
    from zmtile.console import say
    from zmtile.jsonout import dumps

    told = values_of(ctx, commands, path)
    say(dumps(told) if as_json else as_text(told))
    return 0
