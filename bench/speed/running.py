"""Run programs in turn and measure what each costs: seconds, memory, bytes read and written."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = ["Cost", "Program", "exponent", "forget", "in_turn", "machine", "median", "run", "table", "working"]

_SECTOR = 512


@dataclass(frozen=True)
class Cost:
    """What one run of a program took.

    Attributes
    ----------
    seconds, cpu : float
        From its start to its end, and on all cores together.
    memory : int
        Largest resident set of any of its processes, bytes.
    read, written : int
        From and to the disk, bytes. What lies in the system's cache is not read; see `forget`.
    scratch : int
        Bytes that it left in its working folder beside its result.
    """

    seconds: float
    cpu: float
    memory: int
    read: int
    written: int
    scratch: int


@dataclass(frozen=True)
class Program:
    """A way to stack a group.

    Attributes
    ----------
    name : str
    command : callable
        From the group's folder and a working folder to a command line.
    result : str
        Pattern of the file that it leaves in the working folder.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    result: str


@contextmanager
def working() -> Iterator[Path]:
    """Give an empty folder, beside where temporary files go, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="zmtile_bench_") as folder:
        yield Path(folder)


def run(command: Sequence[str], work: Path, result: str = "", extra: Mapping[str, str] | None = None) -> Cost:
    """Run a command in a working folder and measure it.

    Parameters
    ----------
    command : sequence of str
    work : Path
        Temporary files go there, too.
    result : str
        Pattern of the file that it is to leave there; '' for none.
    extra : dict, optional
        Environment variables.

    Raises
    ------
    RuntimeError
        When it fails or leaves no result; with the end of what it printed.
    """
    scratch = work / "tmp"
    scratch.mkdir(exist_ok=True)
    # Modules are compiled once, as where they are installed.
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment = {**own, "TMPDIR": str(scratch), **(extra or {})}
    with open(work / "output.txt", "w+b") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    kept = set(work.glob(result)) if result else set()
    if process.returncode or (result and not kept):
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{said[-2000:]}")
    files = [p for p in work.rglob("*") if p.is_file() and not p.is_symlink()]
    left = sum(p.stat().st_size for p in files if p not in kept and p.name != "output.txt")
    return Cost(
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        usage.ru_inblock * _SECTOR,
        usage.ru_oublock * _SECTOR,
        left,
    )


def in_turn(
    programs: Sequence[Program], group: Path, repeats: int, cold: bool = False
) -> dict[str, list[Cost]]:
    """Run programs on one group, A B C A B C and so on, so that a slow hour of the machine hits all alike.

    Parameters
    ----------
    programs : sequence of Program
    group : Path
        Folder of the frames.
    repeats : int
    cold : bool
        The frames are dropped from the system's cache before each run. Otherwise they are read once before.

    Returns
    -------
    dict
        By the names of those that never failed; why another one did is said on the standard error.
    """
    costs: dict[str, list[Cost]] = {program.name: [] for program in programs}
    frames = sorted(group.glob("*.fits"))
    for path in frames:
        path.read_bytes()
    for _ in range(repeats):
        for program in [p for p in programs if p.name in costs]:
            if cold:
                forget(frames)
            with working() as work:
                try:
                    costs[program.name].append(run(program.command(group, work), work, program.result))
                except RuntimeError as error:
                    print(f"{program.name} fails and is left out: {error}", file=sys.stderr)
                    del costs[program.name]
    return costs


def forget(paths: Sequence[Path]) -> None:
    """Drop files from the system's cache, so that the next program has to read them from the disk."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return p of seconds ∝ size^p, by least squares of the logarithms."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def machine() -> str:
    """Say on what this runs: processor, cores, versions."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:  # another system: its own words for the processor do
        pass
    cores = len(os.sched_getaffinity(0))
    names = ("zmtile", "numpy", "numba", "astropy", "sep")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    siril = shutil.which("siril-cli")
    if siril:
        told = subprocess.run([siril, "--version"], capture_output=True, text=True, check=False)
        versions += f", {told.stdout.strip()}"
    return f"{cpu}, {cores} cores; Python {sys.version.split()[0]}, {versions}"


def median(costs: Sequence[Cost], what: str) -> float:
    """Return the median of one number of some costs."""
    return statistics.median(getattr(cost, what) for cost in costs)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if n == 0 else cell.rjust(w)
            for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (w - 1)) + ("-" if n == 0 else ":") for n, w in enumerate(widths)]
    return "\n".join([line(heads), line(rule), *map(line, rows)])
