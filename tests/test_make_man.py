"""The manual page says what the help says, and is clean."""

import re
import shutil
import subprocess

import click
import make_man
import pytest

from zmtile.cli import cli


def test_every_command_and_option_is_on_the_page():
    text = make_man.page().replace(r"\-", "-")
    with click.Context(cli, info_name="zmtile", **cli.context_settings) as root:
        contexts = list(make_man._leaves(root))
        assert {ctx.command_path for ctx in contexts} == set(re.findall(r'^\.SS "(.*)"$', text, re.M))
        for ctx in contexts:
            for option in ctx.command.get_params(ctx):
                assert all(opt in text for opt in option.opts) or isinstance(option, click.Argument)


def test_nothing_of_a_text_means_something_to_the_typesetter():
    assert make_man._escaped(".it's a-b\\c") == r"\&.it\(aqs a\-b\ec"


@pytest.mark.parametrize("program", [("man", "--warnings", "-l"), ("mandoc", "-Tlint")])
def test_typesetters_have_nothing_to_say(program):
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    done = subprocess.run([*program, make_man.PAGE], capture_output=True, text=True, check=False)
    said = done.stderr.splitlines() if program[0] == "man" else done.stdout.splitlines()
    # Without a date, the page changes only with the commands.
    assert [line for line in said if "missing date" not in line] == []
