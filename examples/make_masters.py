"""Put a real sensor under a simulated group: the same lights as a camera stores them, and its masters.

The lights of `make_group` are what an ideal sensor sees. Here they get a bias with a pattern, a dark current
that grows with the exposure (the hot pixels of the group are its peaks), vignetting, dust, and dead pixels:

    raw = bias + dark · seconds + flat · light

and the bias, dark and flat that a user would have averaged from many exposures are written beside them; dark
and flat hold their bias, the flat the colour of its lamp.

Run ``python examples/make_masters.py FOLDER`` on a folder that `make_group.py` wrote. Then

    zmtile build FOLDER/raw --bias FOLDER/masters/bias.fits --dark FOLDER/masters/dark.fits \\
        --flat FOLDER/masters/flat.fits
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from astropy.io import fits
from make_group import Floats, GroupSpec, Image, read_truth

DARK_SECONDS = 60.0
EXPOSURES = 50  #: that a master is the mean of
READ_NOISE = 8.0  #: ADU of one exposure
LAMP = {"R": 0.55, "G": 1.0, "B": 0.7}  #: relative brightness of the flat's lamp behind the filters
LAMP_LEVEL = 24000.0  #: ADU of the flat in green, or mono


@dataclass(frozen=True, eq=False)
class Sensor:
    """What a sensor does to light; all (rows, cols)."""

    bias: Floats  #: ADU at no exposure
    dark: Floats  #: ADU per second
    flat: Floats  #: response; about 1 in the middle, 0 where a pixel is dead


def sensor_of(spec: GroupSpec, hot: Image) -> Sensor:
    """Draw the sensor of a group; `hot` is what its hot pixels add to every light, ADU."""
    rng = np.random.default_rng([spec.seed, 100])
    shape = (spec.rows, spec.cols)
    bias = 500 + rng.normal(0, 3, (1, spec.cols)) + rng.normal(0, 1, shape)  # every column has its amplifier
    corner = np.hypot(*np.ogrid[-spec.rows : 0, 0 : spec.cols]) / np.hypot(*shape)
    dark = 0.5 + 3 * np.exp(-8 * corner) + rng.gamma(0.5, 0.4, shape) + hot / spec.exposure  # a glow
    y, x = np.meshgrid(np.linspace(-1, 1, spec.rows), np.linspace(-1, 1, spec.cols), indexing="ij")
    flat = (1 - 0.22 * (x**2 + y**2)) * rng.normal(1, 0.005, shape)
    for _ in range(6):
        row, col, radius = rng.uniform([0, 0, 6], [*shape, 14])
        distance = np.hypot(np.arange(spec.rows)[:, None] - row, np.arange(spec.cols) - col)
        flat *= 1 - 0.12 * np.exp(-(((distance - radius) / 3) ** 2))  # the shadow of dust is a ring
    flat.flat[rng.choice(flat.size, max(flat.size // 20000, 1), replace=False)] = 0
    return Sensor(bias, dark, flat)


def exposed(sensor: Sensor, light: Floats, seconds: float) -> Floats:
    """Return what the sensor stores of `light`, (rows, cols) in ADU, before rounding."""
    raw: Floats = sensor.bias + sensor.dark * seconds + sensor.flat * light
    return raw


def lamp_of(spec: GroupSpec) -> Floats:
    """Return the light of the flat's lamp behind the filters of the mosaic, ADU."""
    pattern = [[LAMP[colour] for colour in (spec.cfa or "GGGG")[i : i + 2]] for i in (0, 2)]
    tiled: Floats = np.tile(pattern, (spec.rows // 2 + 1, spec.cols // 2 + 1))[: spec.rows, : spec.cols]
    return LAMP_LEVEL * tiled


def master(sensor: Sensor, light: Floats, seconds: float, seed: list[int]) -> Image:
    """Return the mean of many exposures of `light`."""
    noise = np.random.default_rng(seed).standard_normal(light.shape)
    mean = exposed(sensor, light, seconds) + noise * np.sqrt((READ_NOISE**2 + light) / EXPOSURES)
    return mean.astype(np.float32)


def write_masters(spec: GroupSpec, sensor: Sensor, folder: Path) -> dict[str, Path]:
    """Write ``bias.fits``, ``dark.fits`` and ``flat.fits``; return their paths by kind."""
    folder.mkdir(exist_ok=True)
    nothing = np.zeros((spec.rows, spec.cols))
    lit = {"bias": (nothing, 0.0), "dark": (nothing, DARK_SECONDS), "flat": (lamp_of(spec), 1.0)}
    paths = {}
    for number, (kind, (light, seconds)) in enumerate(lit.items()):
        header = fits.Header({"IMAGETYP": f"Master {kind}", "EXPTIME": seconds, "NCOMBINE": EXPOSURES})
        if spec.cfa:
            header["BAYERPAT"] = spec.cfa
        paths[kind] = folder / f"{kind}.fits"
        plane = master(sensor, light, seconds, [spec.seed, 101 + number])
        fits.PrimaryHDU(plane, header).writeto(paths[kind], overwrite=True)
    return paths


def write_raw(spec: GroupSpec, sensor: Sensor, hot: Image, lights: list[Path], folder: Path) -> list[Path]:
    """Write the lights as the sensor stores them; return their paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for path in lights:
        with fits.open(path) as hdus:
            light, header = hdus[0].data - hot.astype(np.float64), hdus[0].header.copy()
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        raw = np.clip(np.rint(exposed(sensor, light, spec.exposure)), 0, 65535).astype(np.uint16)
        paths.append(folder / path.name)
        fits.PrimaryHDU(raw, header).writeto(paths[-1], overwrite=True)
    return paths


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the group in FOLDER as a camera stores it into FOLDER/raw, and masters into FOLDER/masters."""
    try:
        spec, truth = read_truth(folder / "truth" / "truth.fits")
    except OSError as error:
        raise click.ClickException(f"{folder} holds no group of make_group.py: {error}") from error
    if spec.cfa == "RGB":
        raise click.ClickException("colour cubes have no sensor; choose a mosaic or mono group")
    sensor = sensor_of(spec, truth.hot)
    lights = sorted(folder.glob("light_*.fits"))
    raw = write_raw(spec, sensor, truth.hot, lights, folder / "raw")
    masters = write_masters(spec, sensor, folder / "masters")
    click.echo(f"{len(raw)} frames in {folder / 'raw'}")
    click.echo(f"masters: {', '.join(map(str, masters.values()))}")


if __name__ == "__main__":
    main()
