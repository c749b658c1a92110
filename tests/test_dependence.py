"""Options that do nothing beside others: known as such, and refused."""

import pytest

from zmtile import options
from zmtile.dependence import DEPENDS, idle
from zmtile.errors import UsageError
from zmtile.options import Options

DEFAULTS = Options().as_dict()
TABLES = {
    "reject": "REJECTIONS", "cfa": "CFA_WAYS", "normalize": "NORMALIZATIONS", "combine": "COMBINES",
}  # fmt: skip

OTHER = {
    "kappa": (2.0, 3.0), "winsor_limits": (0.1, 0.1), "rewinsorize": True, "esd_outliers": 0.2,
    "esd_alpha": 0.01, "minmax": (2, 2), "grow": 3, "kernel": "lanczos3", "clamp": False, "sky_degree": 1,
    "weight": "fwhm", "feather": 9.0,
}  # fmt: skip


@pytest.mark.parametrize(("name", "chooser", "allowed"), DEPENDS)
def test_what_does_nothing_beside_a_choice_is_idle_and_refused(name, chooser, allowed):
    choices = (False, True) if chooser == "rewinsorize" else getattr(options, TABLES[chooser])
    for choice in choices:
        values = DEFAULTS | {chooser: choice, name: OTHER[name]}
        if chooser == "rewinsorize":
            values["reject"] = "winsor-quantile"
        if choice not in allowed:
            assert idle(values, DEFAULTS)[name].startswith(f"--{chooser.replace('_', '-')}")
            with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}|kernel"):
                Options(**values)
        else:
            assert chooser not in idle(values, DEFAULTS).get(name, "")


def test_what_depends_on_an_idle_choice_is_judged_by_its_default():
    values = DEFAULTS | {"rewinsorize": True, "grow": 3, "reject": "sigma"}
    assert idle(values, DEFAULTS) == {"rewinsorize": "--reject sigma"}
    assert idle(DEFAULTS, DEFAULTS) == {}
