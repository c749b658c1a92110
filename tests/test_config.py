"""Options from the environment and from files: which one counts, and what is wrong with them."""

import json
import re

import click
import pytest
from click.testing import CliRunner

from zmtile.cli import cli
from zmtile.config import user_file
from zmtile.errors import UsageError
from zmtile.options import Options


def zm(*words, **variables):
    return CliRunner().invoke(cli, [str(word) for word in words], env=variables)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty folder for the user's own file, and one to work in."""
    (tmp_path / "home" / "zmtile").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def handed(monkeypatch):
    """Run a build up to the library's door; return the options that it hands over there."""
    reached = []

    def plan(inputs, chosen, resources, progress):
        reached.append((chosen, resources))
        raise UsageError("enough")

    def run(*words, **variables):
        result = zm("build", "light.fits", *words, **variables)
        assert reached, result.output
        return reached.pop()

    monkeypatch.setattr("zmtile.pipeline.plan_tile", plan)
    monkeypatch.setattr("zmtile.frames.inputs.expand", lambda frames: [])
    return run


def write(path, text):
    path.write_text(text)
    return path


def test_the_first_of_command_line_environment_file_and_users_file_counts(handed, home):
    words = []
    assert handed()[0] == Options()
    write(user_file(), "[build]\nkappa = [4, 4]\nkernel = 'lanczos3'\nfeather = 50\n")
    assert handed()[0] == Options(kappa=(4, 4), kernel="lanczos3", feather=50)
    words = ["--config", write(home / "zmtile.toml", "[build]\nkappa = [5, 5]\nfeather = 60.5\n")]
    assert handed(*words)[0] == Options(kappa=(5, 5), kernel="lanczos3", feather=60.5)
    variables = {"ZMTILE_BUILD_KAPPA": "6 6"}
    assert handed(*words, **variables)[0] == Options(kappa=(6, 6), kernel="lanczos3", feather=60.5)
    words += ["--kappa", 7, 7, "--kernel", "cubic"]
    assert handed(*words, **variables)[0] == Options(kappa=(7, 7), feather=60.5)


def test_a_file_that_merely_lies_here_has_no_say(handed, home):
    write(home / "zmtile.toml", "[build]\ngrow = 3\n")
    assert handed()[0].grow == 0
    assert handed(ZMTILE_CONFIG="zmtile.toml")[0].grow == 3


def test_every_kind_of_value_comes_from_a_file_as_from_the_command_line(handed, home):
    text = """
        [build]
        reject = "esd"
        esd-alpha = 1e-3
        min-coverage = 3
        clamp = false
        hot-pixels = true
        planes = ["weight", "mask"]
        reject-frames = "fwhm<1.5*median, stars>9"
        memory-limit = "1GiB"
        threads = 2
        [check]
        max-step = 1
    """
    chosen, resources = handed("--config", write(home / "c.toml", text))
    assert chosen == Options(
        reject="esd", esd_alpha=1e-3, min_coverage=3, clamp=False, hot_pixels=True, planes=("mask", "weight"),
        reject_frames=("fwhm<1.5*median", "stars>9"),
    )  # fmt: skip
    assert (resources.threads, resources.memory_limit) == (2, 2**30)


def test_every_kind_of_value_comes_from_the_environment(handed):
    names = {
        "ESD_ALPHA": "1e-3", "REJECT": "esd", "CLAMP": "no", "HOT_PIXELS": "1", "PLANES": "weight, mask",
        "REJECT_FRAMES": "fwhm < 1.5 * median, stars > 9", "MEMORY_LIMIT": "1GiB", "KERNEL": "",
    }  # fmt: skip
    chosen, resources = handed(**{f"ZMTILE_BUILD_{name}": value for name, value in names.items()})
    assert chosen == Options(
        reject="esd", esd_alpha=1e-3, clamp=False, hot_pixels=True, planes=("mask", "weight"),
        reject_frames=("fwhm < 1.5 * median", "stars > 9"),
    )  # fmt: skip
    assert resources.memory_limit == 2**30


def test_paths_in_a_file_are_those_below_its_folder(handed, home):
    (home / "deep").mkdir()
    path = write(home / "deep/c.toml", "[build]\nflat = 'f.fits'\ndark = '/d.fits'\nreference = 'l.fits'\n")
    chosen = handed("--config", path)[0]
    assert (chosen.flat, chosen.dark, chosen.reference) == (str(home / "deep/f.fits"), "/d.fits", "l.fits")


def test_lists_and_inputs_in_a_file_lie_below_its_folder_too(home, monkeypatch):
    seen = []
    monkeypatch.setattr("zmtile.rebuild.gather", lambda tile, inputs, progress: seen.append(inputs) or 1 / 0)
    path = write(home / "c.toml", "[rebuild]\ninputs = ['n1/*.fits', '@list.txt', '/x']\n")
    zm("rebuild", "t.fits", "--verify", "--config", path)
    zm("rebuild", "t.fits", "--verify", ZMTILE_REBUILD_INPUTS="n1:n2")
    assert seen == [(f"{home}/n1/*.fits", f"@{home}/list.txt", "/x"), ("n1", "n2")]


def test_the_tables_may_stand_below_tool_zmtile(handed, home):
    path = write(
        home / "pyproject.toml", "[project]\nname = 'x'\n[tool.zmtile.build]\ngrow = 2\n[tool.ruff]\n"
    )
    assert handed("--config", path)[0].grow == 2


def test_what_a_method_that_is_not_chosen_would_need_is_passed_over(handed, home):
    text = "[build]\nkappa = [4, 4]\ngrow = 5\nweight = 'fwhm'\nsky-degree = 2\nkernel = 'lanczos3'\n"
    words = ["--config", write(home / "c.toml", text)]
    assert handed(*words)[0] == Options(kappa=(4, 4), grow=5, weight="fwhm", sky_degree=2, kernel="lanczos3")
    assert handed(
        *words, "--reject", "none", "--combine", "median", "--normalize", "scale", "--cfa", "direct"
    )[0] == Options(reject="none", combine="median", normalize="scale", cfa="direct")
    result = zm("build", "light.fits", *words, "--reject", "minmax")
    assert "--kappa is passed over: it does nothing with --reject minmax" in result.stderr
    assert f"options: sky-degree, weight, kernel, kappa, grow from {home / 'c.toml'}" in result.stderr
    result = zm("build", "light.fits", "--kappa", 4, 4, "--reject", "none")
    assert (result.exit_code, "--kappa does nothing" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("[build]\nkapa = [3, 3]", "no option of build is called kapa", "nearest name is kappa"),
        ("[build]\nmin_frames = 3", "no option of build is called min_frames", "nearest name is min-frames"),
        ("[build]\nconfig = 'x'", "no option of build is called config", "nearest name"),
        ("[bulid]\ngrow = 3", "no command is called bulid", r"nearest name is \[build\]"),
        ("[config]\njson = true", "no command is called config", "nearest name"),
        ("[tool]\nzmtile = 3", "tool.zmtile stands outside of a table", r"\[build\]"),
        ("grow = 3", "grow stands outside of a table", r"\[build\]"),
        ("[build]\nreject = 'sigmma'", 'reject of .build. is "sigmma", it takes one of', 'reject = "sigma"'),
        ("[build]\nkappa = 3", "takes a list of 2 numbers", r"kappa = \[3.0, 3.0\]"),
        ("[build]\nkappa = [3]", "takes a list of 2 numbers", r"kappa = \[3.0, 3.0\]"),
        ("[build]\nminmax = [1, 1.5]", "takes a list of 2 whole numbers", r"minmax = \[1, 1\]"),
        ("[build]\ngrow = true", "takes a whole number", "grow = 0"),
        ("[build]\nthreads = 1.5", "takes a whole number", "threads = 2"),
        ("[build]\nfeather = '3'", "takes a number", "feather = 0.0"),
        ("[build]\nclamp = 'no'", "takes true or false", "clamp = true"),
        ("[build]\nflat = 3", "takes a text", 'flat = "3"'),
        ("[build]\nplanes = [1]", "takes a text, or a list of texts", "planes = "),
        ("[build]\nplanes = 'maks'", "planes of .build.: 'maks' is not a list of planes", "config show"),
        ("[build]\nmemory-limit = '2x'", "memory-limit of .build.: '2x' is no size", "2GiB"),
        ("[build]\nverbose = -1", "verbose of .build.: -1 is not in the range", "config show"),
        ("[check]\nmax-step = []", "takes a number", "max-step = 0.5"),
        ("[build", "this is no TOML", r"\[build\]"),
        ("[build]\nx = '\\xff'", "this is no TOML", r"\[build\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told_with_its_name_the_key_and_the_nearest(home, text, what, remedy):
    path = home / "c.toml"
    path.write_bytes(text.encode().replace(b"\\xff", b"\xff"))
    for words in (["build", "light.fits"], ["check", "tile.fits"], ["config", "show"]):
        result = zm(*words, "--config", path)
        assert result.exit_code == 2
        first, second = result.stderr.splitlines()[:2]
        assert first.startswith(f"zmtile: error: {path}: ")
        assert re.search(what, first)
        assert re.search(remedy, second)


def test_a_file_that_is_not_there_is_an_error(home):
    result = zm("build", "light.fits", "--config", home / "nix.toml")
    assert (result.exit_code, "nix.toml: the options cannot be read" in result.stderr) == (2, True)


def test_a_value_that_makes_no_sense_is_told_with_where_it_comes_from(home):
    path = write(home / "c.toml", "[build]\nkappa = [-1, 3]\n")
    result = zm("build", "light.fits", "--config", path)
    assert (result.exit_code, f"kappa from {path}" in result.stderr) == (2, True)
    result = zm("build", "light.fits", ZMTILE_BUILD_GROW="x")
    assert result.exit_code == 2
    assert "'x' is not a valid integer. (ZMTILE_BUILD_GROW)" in result.stderr


def test_help_reads_no_file(home):
    write(user_file(), "no TOML")
    assert zm("build", "--help").exit_code == 0
    assert zm("--version").exit_code == 0
    assert zm("build", "light.fits").exit_code == 2


def test_every_option_but_those_of_the_line_has_a_variable():
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            continue
        for option in command.params:
            if isinstance(option, click.Option):
                long = max(option.opts, key=len)[2:]
                own = f"ZMTILE_{name}_{long}".upper().replace("-", "_")
                known = {"config": "ZMTILE_CONFIG", "json": None, "overwrite": None}
                assert option.envvar == known.get(long, own)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ZMTILE_BUILD_KAPA", "ZMTILE_BUILD_KAPPA"),
        ("ZMTILE_BIULD_KAPPA", "ZMTILE_BUILD_KAPPA"),
        ("ZMTILE_KAPPA", "ZMTILE_BUILD_KAPPA"),
        ("ZMTILE_CONFG", "ZMTILE_CONFIG"),
    ],
)
def test_a_variable_that_no_option_takes_is_an_error(name, nearest):
    for words in (["build", "light.fits"], ["check", "tile.fits"], ["config", "show"]):
        result = zm(*words, **{name: "3 3"})
        assert result.exit_code == 2
        assert f"{name}: no option takes this variable" in result.stderr
        assert f"The nearest name is {nearest};" in result.stderr


def test_variables_of_another_command_or_program_are_none_of_its_business():
    variables = {"ZMTILE_BUILD_KAPPA": "3 3", "_ZMTILE_OTHER": "x", "ZMTILER": "x"}
    result = zm("check", "nix.fits", **variables)
    assert result.stderr.startswith("zmtile: error: nix.fits: no such file")


@pytest.mark.parametrize("option", ["json", "overwrite"])
def test_what_is_meant_for_one_run_is_said_on_the_line(home, option):
    write(user_file(), f"[build]\n{option} = true\n")
    variable = f"ZMTILE_BUILD_{option.upper()}"
    for where, variables in ((f"{user_file()}, [build]", {}), (variable, {variable: "1"})):
        result = zm("build", "light.fits", **variables)
        assert result.exit_code == 2
        assert f"{where}: --{option} is taken from the command line alone" in result.stderr


def test_home_may_be_written_as_the_shell_has_it(handed, home, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    text = "[build]\nflat = '~/f.fits'\nreference = '~/l.fits'\n[rebuild]\ninputs = ['~/n1', '@~/n2.txt']\n"
    path = write(home / "c.toml", text)
    chosen = handed("--config", path)[0]
    assert (chosen.flat, chosen.reference) == ("/home/me/f.fits", "/home/me/l.fits")
    told = json.loads(zm("config", "show", "rebuild", "--config", path, "--json").stdout)
    assert told["commands"]["rebuild"]["inputs"]["value"] == ["/home/me/n1", "@/home/me/n2.txt"]


def test_without_a_command_of_its_own_config_shows_its_help():
    result = zm("config")
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: zmtile config")


def test_show_tells_where_each_value_comes_from(home):
    write(user_file(), "[build]\ngrow = 2\nfeather = 9\n")
    path = write(home / "c.toml", "[build]\ngrow = 3\n")
    result = zm("config", "show", "--config", path, "--json", ZMTILE_BUILD_KAPPA="3 2.5")
    told = json.loads(result.stdout)
    assert (told["files"], told["user_file"]) == ([str(path), str(user_file())], str(user_file()))
    assert set(told["commands"]) == {n for n, c in cli.commands.items() if not isinstance(c, click.Group)}
    build = told["commands"]["build"]
    assert build["grow"] == {"value": 3, "source": "file", "where": str(path)}
    assert build["feather"] == {"value": 9.0, "source": "file", "where": str(user_file())}
    assert build["kappa"] == {"value": [3.0, 2.5], "source": "environment", "where": "ZMTILE_BUILD_KAPPA"}
    assert build["reject"] == {"value": "winsor", "source": "default", "where": None}
    assert build["threads"]["value"] is None
    assert build["threads"]["meaning"] == "every core"
    assert told["commands"]["preview"]["output"]["meaning"] == "to be given"
    text = zm("config", "show", "build", "--config", path, ZMTILE_BUILD_KAPPA="3 2.5").stdout
    assert re.search(rf"^files +{path}\n +{user_file()}$", text, re.M)
    for line in (
        f"grow +3 +{path}",
        r"kappa +\[3.0, 2.5\] +ZMTILE_BUILD_KAPPA",
        r"threads +\(every core\) +default",
        'reject +"winsor" +default',
    ):
        assert re.search(f"^{line}$", text, re.M)
    assert "max-step" not in text


def test_show_says_that_there_is_no_users_file_and_no_such_command():
    assert f"files   {user_file()} (there is none)" in zm("config", "show", "check").stdout
    result = zm("config", "show", "biuld")
    assert (result.exit_code, "no command is called biuld" in result.stderr) == (2, True)
