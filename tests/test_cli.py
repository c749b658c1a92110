"""The command line: what it prints where, and the exit codes."""

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import zmtile
from zmtile import console, options
from zmtile.cli import cli
from zmtile.console import PlainStages, Stages, printable
from zmtile.errors import UsageError
from zmtile.jsonout import plain, report_of
from zmtile.options import Options
from zmtile.summary import summary
from zmtile.tiles.tile import FrameRecord, read_tile

RUN = [sys.executable, "-m", "zmtile"]


def zm(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def handed(monkeypatch):
    """Run the command line up to the library's door; return what it hands over there."""
    reached = []

    def plan(inputs, chosen, resources, progress):
        reached.append((inputs, chosen, resources))
        raise UsageError("enough")

    def run(*words):
        result = zm("build", *words)
        assert reached, result.output
        return reached.pop()

    monkeypatch.setattr("zmtile.pipeline.plan_tile", plan)
    return run


@pytest.fixture(scope="module")
def built(group, tmp_path_factory):
    """A build with the default options, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return zm("build", *group), folder


@pytest.fixture
def report(group):
    """A report of a build with a frame left out, as the summary takes it."""
    frame = {
        "name": "light.fits",
        "used": True,
        "reason": "",
        "nmatch": 80,
        "rms": 0.1,
        "fwhm": 2.5,
        "noise": [40.0] * 3,
        "scale": [1.0, 1.1, 1.2],
        "offset": [1.0, -2.0, None],
        "slope_x": [0.5, 0.0, None],
        "slope_y": [0.5, 0.0, None],
        "curve_xx": [0.5, 0.0, None],
        "curve_xy": [0.5, 0.0, None],
        "curve_yy": [0.5, 0.0, None],
        "footprint": 0.95,
    }
    left_out = frame | {"name": "light_bad.fits", "used": False, "reason": "its stars match no other frame"}
    return {
        "output": "tile.fits",
        "report": None,
        "dry_run": False,
        "options": plain(Options().as_dict()),
        "reference": "light_0000.fits",
        "canvas": {"rows": 360, "cols": 480, "x0": 0, "y0": 0},
        "planned_memory": 2**20,
        "used": 50,
        "left_out": 1,
        "frames": [frame | {"name": f"light_{k:04d}.fits", "nmatch": 50 + k} for k in range(50)] + [left_out],
        "coverage": {"min": 0, "median": 49, "max": 50, "covered": 0.99999},
        "rejected": {"low": 0.001, "high": 0.002},
        "seconds": {"read": 1.0, "stack": 2.5},
    }


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from zmtile.cli import cli\n"
        "try: cli.main(['build', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'numpy', 'astropy', 'numba', 'rich', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_build_of_plain_frames_does_not_load_astropy(group, tmp_path):
    code = (
        "import sys; from zmtile.cli import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as exit: assert not exit.code\n"
        "sys.exit(', '.join({'astropy', 'scipy.stats'} & set(sys.modules)) or 0)"
    )
    given = ["build", *map(str, group), "-o", str(tmp_path / "tile.fits"), "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version():
    assert zm("--version").stdout == f"zmtile {zmtile.__version__}\n"


def test_help_names_every_option_default_and_exit_code():
    text = " ".join(zm("build", "--help").stdout.split())
    defaults = Options()
    for field in fields(Options):
        assert f"--{field.name.replace('_', '-')} " in text
        value = getattr(defaults, field.name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            assert f"[default: {value}]" in text
    for name in ("ALIGNMENTS", "FRAMINGS", "NORMALIZATIONS", "REJECTIONS", "KERNELS", "EXTRA_PLANES"):
        assert ", ".join(getattr(options, name)) in text
    for code in (0, 1, 2, 3, 70, 129, 130, 143):
        assert re.search(rf"\b{code} +\w", text)
    assert "Examples:" in text


def test_help_fits_in_80_columns():
    assert max(len(line) for line in zm("build", "--help").stdout.splitlines()) <= 80


def test_without_a_command_the_help_is_shown_and_nothing_done():
    result = zm()
    assert result.exit_code == 2
    assert "build" in result.stderr


def test_a_build_writes_the_default_name_and_says_so(built):
    result, folder = built
    assert result.exit_code == 0, result.output
    assert [p.name for p in folder.iterdir()] == ["master_tile_NGC_7023_IRCUT.fits"]
    assert "master_tile_NGC_7023_IRCUT.fits" in result.stdout
    assert re.search(r"^frames +4 used", result.stdout, re.MULTILINE)
    assert len(read_tile(folder / "master_tile_NGC_7023_IRCUT.fits").frames) == 4


def test_a_batch_log_has_one_plain_line_for_each_stage(built):
    result, _ = built
    for stage, unit in (("read", "4 files"), ("measure", "4 frames"), ("register", "4 frames")):
        assert len(re.findall(rf"^{stage}: {unit}, \d+\.\d s$", result.stderr, re.MULTILINE)) == 1
    for stage in ("match", "stack", "write"):
        assert len(re.findall(rf"^{stage}: ", result.stderr, re.MULTILINE)) == 1
    assert all(c.isprintable() or c == "\n" for c in result.output)


def test_the_table_has_a_line_for_every_frame(built, group):
    lines = built[0].stdout.splitlines()
    for path in group:
        (line,) = [line for line in lines if line.startswith(path.name)]
        matched, rms, fwhm = line.split()[1:4]
        assert int(matched) > 20
        assert float(rms) < 0.5
        assert 2 < float(fwhm) < 4
    assert all(line == line.rstrip() for line in lines)


def test_json_is_all_there_is_on_stdout(group, tmp_path):
    target = tmp_path / "tile.fits"
    result = zm("build", *group, "-o", target, "--json", "--framing", "union")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["schema_version"] == 1
    assert report["output"] == str(target)
    assert report["exit_code"] == 0
    assert report["options"]["framing"] == "union"
    assert report["reference"] in [p.name for p in group]
    assert set(report["seconds"]) == {"read", "measure", "register", "match", "stack", "write"}
    assert [set(f) for f in report["frames"]] == [{f.name for f in fields(FrameRecord)}] * 4
    tile = read_tile(target)
    assert (report["canvas"]["rows"], report["canvas"]["cols"]) == tile.shape[-2:]
    assert report["coverage"]["max"] == tile.coverage.max()
    assert report["coverage"]["min"] == tile.coverage.min()
    assert report["coverage"]["median"] == np.quantile(tile.coverage, 0.5, method="inverted_cdf")
    assert report["coverage"]["covered"] == pytest.approx((tile.coverage > 0).mean())
    assert report["rejected"]["high"] == pytest.approx(tile.rejhigh.sum() / tile.coverage.sum())


def test_quiet_says_nothing(group, tmp_path):
    result = zm("build", *group, "-q", "-o", tmp_path / "tile.fits")
    assert (result.exit_code, result.output) == (0, "")


def test_verbose_has_the_line_that_other_programs_look_for(group, tmp_path):
    result = zm("build", *group, "-v", "-o", tmp_path / "tile.fits")
    assert "MT_COVERAGE: propagate_mask=True" in result.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_shows_the_plan_and_writes_nothing(group, tmp_path, monkeypatch, as_json):
    monkeypatch.chdir(tmp_path)
    result = zm("build", *group, "--dry-run", *["--json"] * as_json)
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    if as_json:
        report = json.loads(result.stdout)
        assert report["dry_run"]
        assert report["coverage"] is None
        assert report["planned_memory"] > 0
    else:
        assert re.search(r"^planned +master_tile_NGC_7023_IRCUT.fits$", result.stdout, re.MULTILINE)
        assert re.search(r"^memory +\d+ MiB", result.stdout, re.MULTILINE)


def test_the_defaults_of_the_command_line_are_those_of_the_library(handed, group):
    inputs, chosen, resources = handed(*group)
    assert chosen == Options()
    assert resources == options.Resources()
    assert inputs == [p.resolve() for p in group]


def test_every_option_reaches_the_library(handed, group):
    words = (
        "--reference light_0002.fits --align wcs --transform affine --framing union --normalize both "
        "--weight none --reject winsor-quantile --kappa 2.5 4 --winsor-limits 0.1 0.2 --rewinsorize "
        "--combine median --min-coverage 2 --fill -1 --planes weight --kernel lanczos4 --no-clamp "
        "--min-frames 3 --skip-unreadable --threads 2 --memory-limit 1.5GiB "
        "--reject-frames fwhm<3,rms<1 --reject-frames stars>9 "
        "--bias b.fits --dark d.fits --flat f.fits --hot-pixels"
    )
    _, chosen, resources = handed(group[0], *words.split())
    assert chosen == Options(
        reference="light_0002.fits",
        align="wcs",
        transform="affine",
        framing="union",
        normalize="both",
        weight="none",
        reject="winsor-quantile",
        kappa=(2.5, 4.0),
        winsor_limits=(0.1, 0.2),
        rewinsorize=True,
        combine="median",
        min_coverage=2,
        fill=-1.0,
        planes=("weight",),
        kernel="lanczos4",
        clamp=False,
        min_frames=3,
        skip_unreadable=True,
        reject_frames=("fwhm<3", "rms<1", "stars>9"),
        bias="b.fits",
        dark="d.fits",
        flat="f.fits",
        hot_pixels=True,
    )
    assert resources == options.Resources(2, 3 * 2**29)
    # Those that belong to another rejection or normalization would be refused here.
    apart = [
        ("--normalize surface --sky-degree 2", {"sky_degree": 2}),
        ("--combine mean --feather 25", {"feather": 25.0}),
        ("--reject esd --esd-outliers 0.2 --esd-alpha 0.01", {"esd_outliers": 0.2, "esd_alpha": 0.01}),
        ("--reject minmax --minmax 2 3", {"minmax": (2, 3)}),
        ("--cfa direct", {"cfa": "direct"}),
        ("--reject mad --grow 4", {"grow": 4}),
    ]
    for words, values in apart:
        first = {words.split()[0].lstrip("-"): words.split()[1]}
        assert handed(group[0], *words.split())[1] == Options(**(first | values))
    changed = {f.name for f in fields(Options) if getattr(chosen, f.name) != getattr(Options(), f.name)}
    assert changed.union(*(values for _, values in apart)) == {f.name for f in fields(Options)}


@pytest.mark.parametrize(
    ("words", "planes"),
    [
        ("", ("mask",)),
        ("--planes all", options.EXTRA_PLANES),
        ("--planes none", ()),
        ("--planes weight,mask", ("mask", "weight")),
        ("--planes weight --planes mask --planes weight", ("mask", "weight")),
        ("--planes Weight,", ("weight",)),
    ],
)
def test_planes_are_comma_separated_or_repeated(handed, group, words, planes):
    assert handed(group[0], *words.split())[1].planes == planes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "FRAMES"),
        ("{group} --nonsense", "--nonsense"),
        ("{group} --reject clamp", "clamp"),
        ("{group} --kappa 3", "--kappa"),
        ("{group} --kappa 0 3", "kappa"),
        ("{group} --winsor-limits 0.6 0.6", "winsor limits"),
        ("{group} --rewinsorize", "--rewinsorize"),
        ("{group} -o tile.png", "plain FITS file"),
        ("{group} -o tile.fits.gz", "plain FITS file"),
        ("{group} --sky-degree 3", "sky degree"),
        ("{group} --feather -1", "feather"),
        ("{group} --feather 9 --combine median", "--feather"),
        ("{group} --sky-degree 2 --normalize both", "--sky-degree"),
        ("{group} --planes colour", "colour"),
        ("{group} --planes none,mask", "none,mask"),
        ("{group} --memory-limit plenty", "plenty"),
        ("{group} --memory-limit 1KiB", "memory"),
        ("{group} --threads 0", "threads"),
        ("{group} --min-coverage 0", "min coverage"),
        ("{group} --fill nan", "fill"),
        ("{group} --reference other.fits", "other.fits"),
        ("{group} --align wcs", "WCS"),
        ("{group} --reject-frames fwhm", "'fwhm' is no rule"),
        ("{group} --reject-frames size<3", "size"),
        ("{group} --reject-frames scale<2 --normalize offset", "scale"),
        ("{group} --reject-frames matched>9 --align wcs", "matches no stars"),
    ],
)
def test_usage_errors_exit_with_2_and_a_remedy(group, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    given = [w for word in words.split() for w in (map(str, group) if word == "{group}" else [word])]
    result = zm("build", *given)
    assert (result.exit_code, result.stdout) == (2, "")
    error, remedy = result.stderr[result.stderr.index("zmtile: error: ") :].splitlines()
    assert message in error
    assert remedy.startswith("  ")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
    as_json = zm("build", "--json", *given)
    assert as_json.exit_code == 2
    report = json.loads(as_json.stdout)
    assert error == f"zmtile: error: {report['error']}"
    assert (report["remedy"], report["exit_code"]) == (remedy.strip(), 2)
    assert error in as_json.stderr


def test_an_unknown_command_is_a_usage_error():
    result = zm("stack", "a.fits")
    assert result.exit_code == 2
    assert "zmtile: error: No such command 'stack'" in result.stderr


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unexpected_error_is_called_a_bug_and_shown_whole(group, tmp_path, monkeypatch, flags):
    monkeypatch.setattr("zmtile.pipeline.plan_tile", lambda *_: 1 / 0)
    result = zm("build", *group, "-o", tmp_path / "t.fits", *flags)
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert "This is a bug in zmtile" in result.stderr
    assert not flags or json.loads(result.stdout)["exit_code"] == 70


def test_lack_of_memory_is_no_bug(group, tmp_path, monkeypatch):
    def plan(*_):
        raise MemoryError

    monkeypatch.setattr("zmtile.pipeline.plan_tile", plan)
    result = zm("build", *group, "-o", tmp_path / "t.fits")
    assert result.exit_code == 2
    assert "not enough memory" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("flag", "shown"), [("-v", False), ("-vv", True)])
def test_tracebacks_of_the_users_errors_are_shown_on_demand(flag, shown):
    assert ("Traceback" in zm("build", "missing.fits", flag).stderr) == shown


def test_a_reader_that_goes_away_is_no_error(group, tmp_path):
    for stream in ("stdout", "stderr"):
        pipe = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: subprocess.PIPE}
        run = subprocess.Popen([*RUN, "build", *group, "-o", tmp_path / f"{stream}.fits"], **pipe)
        getattr(run, stream).close()
        said = b"" if run.stderr.closed else run.stderr.read()
        assert run.wait() == 0
        assert b"Traceback" not in said
        assert b"BrokenPipe" not in said
        assert (tmp_path / f"{stream}.fits").exists()
        run.stderr.close()


def on_a_terminal(words, columns, **environment):
    """Run a command with stdout and stderr on a terminal of a width; return all that it sees."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color"} | environment
    run = subprocess.Popen([*RUN, *map(str, words)], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    return run.wait(), seen.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_bars_and_a_table_within_its_width(group, tmp_path, columns):
    words = ["build", *group, "-o", tmp_path / "tile.fits"]
    code, seen = on_a_terminal(words if columns == 80 else [*words, "--dry-run"], columns)
    assert code == 0
    assert "\x1b[" in seen
    assert "100%" in seen
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    lines = [line for line in re.split(r"[\r\n]+", text) if not line.startswith(("written", "planned"))]
    assert max(map(len, lines)) <= columns
    assert ("scale RGB" in text) == (columns == 120)


def test_no_color_and_dumb_terminals_are_respected(group, tmp_path):
    words = ["build", *group, "--dry-run", "-o", tmp_path / "tile.fits"]
    _, seen = on_a_terminal(words, 80, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7])[0-9;]*m", seen)
    _, seen = on_a_terminal(words, 80, TERM="dumb")
    assert "\x1b" not in seen
    assert re.search(r"^measure: 4 frames", seen, re.MULTILINE)


def test_a_long_group_is_digested_on_a_terminal_only(report, monkeypatch):
    text = summary(report)
    assert "light_0049.fits" in text
    assert "\x1b" not in text
    monkeypatch.setattr("zmtile.richtext.on_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    text = re.sub(r"\x1b\[[0-9;]*m", "", summary(report))
    assert "light_0049.fits" not in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith(("mini", "medi", "maxi"))] == [
        "50",
        "74",
        "99",
    ]
    assert "light_bad.fits" in text
    assert "its stars match no other frame" in text
    assert "99.9% of the tile" in text  # not 100: something is missing


def test_names_in_the_summary_are_cut_at_the_front_and_hold_no_control_characters(report, monkeypatch):
    report["frames"] = report["frames"][:2]
    report["frames"][0]["name"] = "n" * 100 + "_212232.fits"
    report["frames"][1]["name"] = "evil\x1b[2J\x07.fits"
    monkeypatch.setattr("zmtile.richtext.on_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    text = summary(report)
    assert "n_212232.fits " in text
    assert "…" in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert printable("a\x1b[2Jb\udcff\n") == "a�[2Jb�\n"


def test_one_left_out_frame_makes_exit_code_1(group, tmp_path):
    bad = tmp_path / "bad.fits"
    bad.write_text("no FITS")
    result = zm("build", *group, bad, "--skip-unreadable", "-o", tmp_path / "tile.fits")
    assert result.exit_code == 1
    assert "left out: 1" in result.stdout
    assert "not a FITS file" in result.stdout
    assert "bad.fits is left out" in result.stderr


def test_stages_take_their_time(monkeypatch, capsys):
    now = iter([10.0, 13.0, 13.0, 14.5, 20.0, 20.5])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    stages = PlainStages()
    stages.stage("measure", 1200)
    stages.stage("match", 2)
    stages.done()
    stages.done()
    stages.stage("measure", 3)
    stages.done()
    assert stages.seconds == {"measure": 3.5, "match": 1.5}
    assert capsys.readouterr().err.splitlines() == [
        "measure: 1,200 frames, 3.0 s",
        "match: 1.5 s",
        "measure: 3 frames, 0.5 s",
    ]


def test_a_stage_that_fails_is_not_reported_as_done(capsys):
    def fail():
        with PlainStages() as stages:
            stages.stage("measure", 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert capsys.readouterr().err == ""


def test_plain_values():
    value = {
        "a": (np.float32(1.5), float("nan")),
        "b": np.array([[1, 2]]),
        "c": Path("x"),
        "d": np.float64("inf"),
    }
    assert plain(value) == {"a": [1.5, None], "b": [[1, 2]], "c": "x", "d": None}
    json.dumps(plain(value), allow_nan=False)


def test_reporting_leaves_the_log_as_it_was():
    import logging

    log = logging.getLogger("zmtile")
    before = (log.level, list(log.handlers))
    with console.reporting(verbose=2, quiet=False, as_json=False) as stages:
        assert isinstance(stages, Stages)
        assert log.level == logging.DEBUG
    assert (log.level, list(log.handlers)) == before


def test_python_m_runs_the_program():
    done = subprocess.run([*RUN, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"zmtile {zmtile.__version__}\n"


def test_the_report_of_a_plan_has_the_keys_of_a_tile(group):
    from zmtile.pipeline import plan_tile, stack_plan

    plan = plan_tile(group)
    dry = report_of(plan, None, Path("a.fits"), {})
    wet = report_of(plan, stack_plan(plan), Path("a.fits"), {})
    assert list(dry) == list(wet)


@pytest.mark.parametrize("words", [["build", "--kappa", "3"], ["build", "--nix"], ["build"]])
def test_usage_errors_name_the_help_of_their_command(words):
    assert "See zmtile build --help." in CliRunner().invoke(cli, words).stderr
