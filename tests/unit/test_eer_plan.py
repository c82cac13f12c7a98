"""How an EER movie is asked for: fractions by dose or by option, pixel and dose as rendered."""

import msgspec
import pytest

from services.kit.errors import Misuse
from services.kit.options import Options
from services.prep import plan
from services.prep.requests import MotionRequest
from tests.report_session import PIXEL_A, settled

EER = msgspec.structs.replace(
    settled("m1", 0.0),
    path="m1_EER.eer",
    format="eer",
    n_frames=1200,
    dose_per_frame_e_A2=0.04,
    frames_per_fraction=25,
)


def asked(movie, **options: str) -> MotionRequest:
    job = Options("motioncorr", options)
    ask = plan.motion_request(movie, plan.movie_path(movie), None, job, "MotionCorr/job002/")
    return plan.as_taken(ask, movie, job)


@pytest.mark.parametrize(
    ("options", "group"),
    [({}, 25), ({"eer_grouping": "32"}, 25), ({"eer_grouping": "40"}, 40)],
)
def test_the_dose_decides_unless_the_job_does(options: dict, group: int):
    ask = asked(EER, **options)
    assert ask.eer_grouping == group
    assert ask.dose_per_frame_e_A2 == pytest.approx(0.04 * group)
    assert ask.n_frames == 1200
    unknown = msgspec.structs.replace(EER, frames_per_fraction=None)
    assert asked(unknown).eer_grouping == 32


@pytest.mark.parametrize(
    ("options", "upsampling", "pixel"),
    [
        ({}, 1, 1.0),
        ({"eer_upsampling": "2"}, 2, 0.5),
        ({"eer_upsampling": "-1"}, -1, 2.0),
        ({"other_args": "--do_at_most 5 --eer_upsampling 3"}, 3, 0.25),
    ],
)
def test_the_pixel_is_that_of_the_grid(options: dict, upsampling: int, pixel: float):
    ask = asked(EER, **options)
    assert ask.eer_upsampling == upsampling
    assert ask.pixel_size_A == pytest.approx(pixel * PIXEL_A)
    job = Options("motioncorr", options)
    assert plan.rendered_pixel_A(EER, job) == ask.pixel_size_A


@pytest.mark.parametrize("value", ["0", "4", "fine"])
def test_no_such_upsampling(value: str):
    with pytest.raises(Misuse, match="eer_upsampling"):
        asked(EER, eer_upsampling=value)


def test_a_movie_of_another_kind_is_asked_for_as_before():
    ask = asked(settled("m1", 0.0), eer_grouping="40", eer_upsampling="2")
    assert (ask.eer_grouping, ask.eer_upsampling) == (None, None)
    assert (ask.pixel_size_A, ask.dose_per_frame_e_A2) == (PIXEL_A, 1.5)
    # Its key stays what it was: results of an earlier version are not made again.
    assert b"eer" not in msgspec.msgpack.encode(ask)


def test_a_table_gives_pixel_and_dose_as_rendered():
    """As in RELION: who imports for 8K gives the pixel of 8K, and the dose of a fraction."""
    job = Options("job", {"eer_grouping": "20", "eer_upsampling": "2"})
    ask = plan.motion_request(EER, "Movies/a.eer", None, job, "MotionCorr/job002/")
    assert (ask.eer_grouping, ask.eer_upsampling) == (20, 2)
    assert (ask.pixel_size_A, ask.dose_per_frame_e_A2) == (PIXEL_A, 0.04)
