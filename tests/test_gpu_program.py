"""The programs of the GPU: they compile for every generation of it, and their networks sort."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from fakecupy import COMPILER, compiled

from zmtile.gpu.geometry import GEOMETRY, RULE
from zmtile.gpu.program import OPTIONS, OWN, TOGETHER, frames_program, own_size, stack_program, stages
from zmtile.kernels.bounds import METHODS

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
PROGRAMS = {
    "frames": frames_program(),
    "20 samples of a thread's own": stack_program(20, "winsor"),
    "64 samples of a thread's own": stack_program(64, "winsor"),
    "256 samples of a warp": stack_program(256, "winsor"),
    "1024 samples of a warp": stack_program(1024, "winsor"),
    "any number": stack_program(0, "winsor"),
}


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed")
@pytest.mark.parametrize("name", PROGRAMS)
def test_nvcc_compiles_for_all_architectures_without_a_warning(name, tmp_path):
    source = tmp_path / "program.cu"
    source.write_text(PROGRAMS[name])
    targets = [f"-gencode=arch=compute_{a[3:]},code={a}" for a in ARCHITECTURES]
    run = subprocess.run(
        ["nvcc", *OPTIONS, *targets, "-Xptxas", "-v", "-fatbin", "-o", str(tmp_path / "out"), str(source)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "warning" not in run.stderr
    if "samples" in name:  # those in registers are what makes it fast
        size = int(name.split()[0]) // (32 if "warp" in name else 1)
        frames = [int(n) for n in re.findall(r"(\d+) bytes stack frame", run.stderr)]
        assert len(frames) == 3 * len(ARCHITECTURES)  # two kernels, and a function that they call
        assert max(frames) < 4 * size


@pytest.mark.skipif(not shutil.which("nvcc"), reason="nvcc is not installed")
@pytest.mark.parametrize("method", METHODS)
def test_nvcc_compiles_every_method(method, tmp_path):
    # In one program for both kernels: the names of what they share are put apart.
    own, shared = (
        f"namespace n{size} {{\n{stack_program(size, method)}\n}}\n".replace(
            "combine_planes", f"combine{size}"
        )
        for size in (12, 0)
    )
    undefined = "".join(f"#undef {name}\n" for name in re.findall(r"#define (\w+)", stack_program(0, method)))
    source = tmp_path / "program.cu"
    source.write_text(own + undefined + shared)
    made = tmp_path / "out"
    run = subprocess.run(
        ["nvcc", *OPTIONS, "-arch=sm_75", "-ptx", "-o", str(made), str(source)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert ".ftz" not in made.read_text()


@pytest.mark.parametrize("frames", [1, 2, 3, 20, 64, 65, 131])
def test_the_comparators_of_a_stage_share_no_row_and_the_stages_sort(frames):
    pairs, begins = stages(frames)
    values = np.random.default_rng(frames).random((50, frames))
    for first, last in pairwise(begins):
        stage = pairs[first:last]
        assert len(np.unique(stage)) == stage.size
        a, b = stage.T
        low, high = np.minimum(values[:, a], values[:, b]), np.maximum(values[:, a], values[:, b])
        values[:, a], values[:, b] = low, high
    assert begins[0] == 0
    assert begins[-1] == len(pairs)
    assert (np.diff(values, axis=1) >= 0).all()


def test_every_number_of_frames_has_a_program_that_holds_it():
    for frames in range(1, 2500):
        size, other = own_size(frames, "winsor"), own_size(frames, "mad")
        assert size >= frames if frames <= TOGETHER[-1] else size == 0
        assert other >= frames if frames <= OWN[-1] else other == 0


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler (g++) is installed")
@pytest.mark.parametrize(
    ("dtype", "name", "text"),
    [(GEOMETRY, "Geometry", frames_program()), (RULE, "Rejection", stack_program(4, "none"))],
    ids=["geometry", "rule"],
)
def test_records_have_the_sizes_that_the_compiler_gives_them(dtype, name, text):
    probe = f'\nextern "C" long size_of() {{ return sizeof({name}); }}\n'
    library, _ = compiled(text + probe)
    assert library.size_of() == dtype.itemsize


def test_every_method_of_the_rejection_has_its_number_in_the_program():
    for method, number in METHODS.items():
        text = stack_program(0, method)
        assert f"#define METHOD {number}\n" in text
        assert f"#define {method.upper().replace('-', '_')} {number}\n" in text
