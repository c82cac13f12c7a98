"""RELION's additional arguments of motion correction."""

import pytest

from services.kit.errors import Misuse
from services.kit.options import Options
from services.prep.arguments import arguments, with_arguments


def options(other_args: str, **values: str) -> Options:
    return Options("MotionCorr/job002/", {"other_args": other_args, **values})


def test_values_and_switches_become_options() -> None:
    asked = options("--skip_defect --max_iter 3 --even_odd_split --do_at_most 20", patch_x="5")
    assert arguments(asked) == {
        "--skip_defect": "Yes",
        "--max_iter": "3",
        "--even_odd_split": "Yes",
        "--do_at_most": "20",
    }
    found = with_arguments(asked)
    assert found.switch("skip_defect", False) and found.switch("even_odd_split", False)
    assert (found.whole("max_iter", 10), found.whole("patch_x", 1)) == (3, 5)
    assert arguments(options("")) == {}


@pytest.mark.parametrize("typed", ["--fast 3", "--max_iter", "--skip_defect 3"])
def test_what_is_not_known_is_refused(typed: str) -> None:
    with pytest.raises(Misuse, match=r"other_args of MotionCorr/job002/ .*--max_iter N"):
        arguments(options(typed))
