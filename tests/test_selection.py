"""--reject-frames: who stays, why the others do not, and what the run says of them."""

from __future__ import annotations

import dataclasses
import json

import make_group
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from zmtile import Options, TooFewFrames, build_tile, read_tile
from zmtile.cli import cli
from zmtile.pipeline import plan_tile

SPEC = make_group.GroupSpec(
    frames=6,
    rows=360,
    cols=480,
    stars=150,
    seed=5,
    flux=(2e3, 2e5),
    fwhm=(2.8, 3.0),
    cfa=None,
    dither=12.0,
    cosmic_rays=5,
)
BLURRED, CLOUDY, NOISY = 1, 3, 4
STRANGE = (BLURRED, CLOUDY, NOISY)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Six frames: one out of focus, one behind a cloud, one noisy."""
    folder = tmp_path_factory.mktemp("mixed")
    paths = make_group.write_group(SPEC, folder)
    truth = make_group.truth_of(SPEC)
    truth.fwhm[BLURRED], truth.transparency[CLOUDY] = 4.5, 0.3
    for k in STRANGE:
        spec = dataclasses.replace(SPEC, noise=120.0) if k == NOISY else SPEC
        header = make_group.frame_header(spec, truth, k)
        fits.writeto(paths[k], make_group.render_frame(spec, truth, k), header, overwrite=True)
    return paths


def zm(*words):
    return CliRunner().invoke(cli, ["build", *map(str, words)])


def left_out(paths, **options):
    """Names and records of the frames that are left out."""
    return {r.name: r for r in plan_tile(paths, Options(**options)).records if not r.used}


@pytest.mark.parametrize(
    ("rule", "failing"),
    [
        ("fwhm<1.3*median", {BLURRED}),
        ("fwhm<4", {BLURRED}),
        ("noise<=1.5*median", {NOISY}),
        ("stars>0.6*median", {CLOUDY, NOISY}),
        ("scale<2*median", {CLOUDY}),
        ("scale<2", {CLOUDY}),
        ("rms<3", set()),
        ("roundness>0.5", set()),
        ("sky<1e5", set()),
        ("matched>4", set()),
    ],
)
def test_frames_that_fail_a_rule_are_left_out_with_the_value_and_the_rule(mixed, rule, failing):
    found = left_out(mixed, reject_frames=(rule,))
    assert set(found) == {mixed[k].name for k in failing}
    for record in found.values():
        assert record.rule == rule
        assert rule in record.reason
        assert np.isnan(record.weight).all()


def test_rules_on_the_match_are_applied_to_what_was_matched(mixed):
    every = {r.name: r for r in plan_tile(mixed, Options()).records}
    others = [r for r in every.values() if r.rms > 0]
    worst = max(others, key=lambda r: r.rms)
    limit = np.sort([r.rms for r in others])[-2:].mean()
    assert list(left_out(mixed, reject_frames=(f"rms<{limit}",))) == [worst.name]
    counts = np.sort([r.nmatch for r in others])
    few = left_out(mixed, reject_frames=(f"matched>={counts[1]}",))
    assert [r.name for r in others if r.nmatch < counts[1]] == list(few)


def test_several_rules_add_up_and_the_first_that_fails_is_the_reason(mixed):
    rules = ("fwhm<1.3*median", "stars>0.7*median", "scale<2*median")
    found = left_out(mixed, reject_frames=rules)
    assert {name: r.rule for name, r in found.items()} == {
        mixed[BLURRED].name: rules[0],
        mixed[CLOUDY].name: rules[1],
        mixed[NOISY].name: rules[1],
    }


def test_the_rest_is_stacked_as_if_the_others_had_not_been_given(mixed):
    rules = ("fwhm<1.3*median", "noise<1.5*median", "scale<2*median")
    reference = mixed[0].name
    tile = build_tile(mixed, Options(reference=reference, reject_frames=rules))
    good = [p for k, p in enumerate(mixed) if k not in STRANGE]
    alone = build_tile(good, Options(reference=reference))
    for plane in ("image", "uncert", "weight", "coverage"):
        np.testing.assert_array_equal(getattr(tile, plane), getattr(alone, plane))


def test_the_reference_is_chosen_among_those_that_stay(mixed):
    first = plan_tile(mixed).reference
    record = next(r for r in plan_tile(mixed).records if r.name == first)
    plan = plan_tile(mixed, Options(reject_frames=(f"stars<{record.nstars}",)))
    assert plan.reference != first
    assert next(r for r in plan.records if r.name == first).rule


def test_a_reference_that_was_named_and_fails_is_an_error(mixed):
    with pytest.raises(TooFewFrames, match="cannot be the reference") as caught:
        plan_tile(mixed, Options(reference=mixed[BLURRED].name, reject_frames=("fwhm<4",)))
    assert caught.value.exit_code == 3
    assert "--reference" in caught.value.remedy


def test_the_reference_stays_when_only_its_scale_fails_and_it_is_said(mixed, caplog):
    with caplog.at_level("WARNING", "zmtile"):
        plan = plan_tile(mixed, Options(reference=mixed[0].name, reject_frames=("scale>1.5",)))
    assert plan.reference == mixed[0].name
    assert "the reference fails scale>1.5" in caplog.text
    assert {r.name for r in plan.records if r.used} == {mixed[0].name, mixed[CLOUDY].name}


def test_what_is_not_known_fails(mixed, tmp_path):
    with fits.open(mixed[0]) as hdus:
        pixels, header = hdus[0].data, hdus[0].header
    rng = np.random.default_rng(0)
    dark = tmp_path / "dark.fits"
    fits.writeto(dark, rng.normal(900, 45, pixels.shape).astype(np.float32), header)
    (record,) = left_out([*mixed, dark], reject_frames=("fwhm<9",)).values()
    assert record.reason == "its FWHM is not known, which fails fwhm<9"


def test_too_few_that_hold_the_rules_are_an_error_with_the_reasons(mixed):
    for rules, said in (
        (("fwhm<1",), "every frame fails a rule"),
        (("noise>1.5*median",), "1 of 6 frames can be used"),
        (("scale>100",), "1 of 6 frames can be used"),
    ):
        with pytest.raises(TooFewFrames, match=said) as caught:
            plan_tile(mixed, Options(reject_frames=rules))
        assert rules[0] in caught.value.what
        assert "looser" in caught.value.remedy


def test_what_the_user_asked_for_is_success(mixed, tmp_path):
    target = tmp_path / "tile.fits"
    words = ("-o", target, "--reject-frames", "fwhm<1.3*median , noise<1.5*median")
    result = zm(*mixed, *words)
    assert result.exit_code == 0, result.output
    assert "left out: 2" in result.stdout
    assert "its FWHM is" in result.stdout
    assert result.stderr.count("is left out: its") == 2
    assert fits.getheader(target)["ZMT_RFRM"] == "fwhm<1.3*median, noise<1.5*median"
    frames = {r.name: r for r in read_tile(target).frames}
    assert frames[mixed[BLURRED].name].rule == "fwhm<1.3*median"
    assert frames[mixed[0].name].rule == ""


def test_frames_that_fail_otherwise_still_count_for_the_exit_code(mixed, tmp_path):
    bad = tmp_path / "bad.fits"
    bad.write_text("no FITS")
    words = ("--skip-unreadable", "--dry-run", "--json", "--reject-frames", "fwhm<1.3*median")
    result = zm(*mixed, bad, *words)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["left_out"]) == (1, 2)
    assert sorted(f["rule"] for f in report["frames"] if not f["used"]) == ["", "fwhm<1.3*median"]
    assert report["options"]["reject_frames"] == ["fwhm<1.3*median"]
