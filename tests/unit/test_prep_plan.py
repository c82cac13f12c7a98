"""What prep takes from a movie's event: its place in the project, the gain's turns, the dose."""

from pathlib import Path

import msgspec
import pytest

from services.kit.events import Body, MovieImported, MovieMoved, OpticsGrouped
from services.kit.options import Options
from services.kit.tables import optics_table
from services.prep import plan
from services.prep.build import build
from services.setup import set_up
from tests.report_session import corrected, settled

MOVIE = settled("m1", 0.0)


def taken(options: dict[str, str], **changes: object) -> tuple[int, int, float]:
    movie = msgspec.structs.replace(MOVIE, **changes)
    job = Options("motioncorr", options)
    ask = plan.motion_request(movie, plan.movie_path(movie), None, job, "MotionCorr/job002/")
    found = plan.as_taken(ask, movie, job)
    return found.gain_rotation, found.gain_flip, found.pre_exposure_e_A2


def test_options_of_the_job_by_relions_names():
    options = {
        "patch_x": "7",
        "patch_y": "5",
        "group_frames": "2",
        "do_even_odd_split": "Yes",
        "fn_defect": "Movies/defects.txt",
        "last_frame_sum": "0",
        "group_for_ps": "3",
        "other_args": "--skip_defect --ps_size 256 --max_iter 4 --dose_motionstats_cutoff 8",
    }
    job = Options("motioncorr", options)
    ask = plan.motion_request(MOVIE, plan.movie_path(MOVIE), None, job, "MotionCorr/job002/")
    assert (ask.patches, ask.group_frames, ask.even_odd) == ((7, 5), 2, True)
    assert (ask.defect_path, ask.skip_defects) == ("Movies/defects.txt", True)
    assert (ask.ps_size, ask.max_iter, ask.early_dose_e_A2) == (256, 4, 8.0)
    assert (ask.last_frame, ask.dose_per_ps_e_A2) == (-1, 3.0)


def test_a_movie_on_another_root_is_named_by_its_link():
    assert plan.movie_path(MOVIE) == f"Movies/{MOVIE.path}"
    moved = msgspec.structs.replace(MOVIE, link="Movies_2")
    assert plan.movie_path(moved) == f"Movies_2/{MOVIE.path}"


@pytest.mark.parametrize(
    ("options", "turns"),
    [
        ({}, (1, 2)),
        ({"gain_rot": "No rotation (0)", "gain_flip": "No flipping (0)"}, (1, 2)),
        ({"gain_rot": "270 degrees (3)"}, (3, 0)),
        ({"fn_gain_ref": "mine.mrc"}, (0, 0)),
    ],
)
def test_the_site_turns_the_gain_unless_the_job_says_so(options: dict, turns: tuple[int, int]):
    assert taken(options, gain_rotation=1, gain_flip=2)[:2] == turns
    assert taken({}) == (0, 0, 0.0)


@pytest.mark.parametrize(
    ("options", "changes", "wanted"),
    [
        ({}, {}, (1.0, 1)),
        ({}, {"bin_factor": 2, "group_frames": 3}, (2.0, 3)),
        (
            {"bin_factor": "1.5", "group_frames": "4"},
            {"bin_factor": 2, "group_frames": 3},
            (1.5, 4),
        ),
    ],
)
def test_super_resolution_is_binned_and_thin_frames_are_grouped(options, changes, wanted):
    movie = msgspec.structs.replace(MOVIE, **changes)
    job = Options("motioncorr", options)
    ask = plan.motion_request(movie, plan.movie_path(movie), None, job, "MotionCorr/job002/")
    found = plan.as_taken(ask, movie, job)
    assert (found.bin_factor, found.group_frames) == wanted


def test_the_dose_before_a_tilt_is_added_to_the_jobs():
    assert taken({"pre_exposure": "2"}, pre_exposure_e_A2=30.0)[2] == 32.0


def test_a_movie_that_moved_before_it_was_corrected_is_read_where_it_lies(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    layout, session = set_up(tmp_path / "project", tmp_path / "raw", {}, {})
    service, _ = build(layout, session)
    state = service.empty()

    def arrive(body: Body) -> list[Body]:
        told = []
        for answer in service.arrived(state, body):
            service.apply(state, answer, 0.0)
            told.append(answer)
        return told

    arrive(MOVIE)
    moved = MovieMoved(movie="m1", path="/cam/new/m1.tiff", link="Movies_2", below="new/m1.tiff")
    assert arrive(MovieMoved(movie="unknown", path="x")) == []
    assert [type(body) for body in arrive(moved)][-1] is MovieImported
    assert plan.movie_path(state.imported["m1"]) == "Movies_2/new/m1.tiff"
    assert arrive(moved) == [], "it is told once"
    service.apply(state, corrected("m1", 1.0, 64), 0.0)
    assert arrive(MovieMoved(movie="m1", path="elsewhere/m1.tiff")) == []


def test_the_mtf_is_in_the_optics_table_when_all_groups_have_one():
    group = OpticsGrouped(
        optics_group=1,
        name="opticsGroup1",
        voltage_kV=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        pixel_size_A=1.0,
        mtf_path="/mtf/k3.star",
    )
    assert optics_table([group]).columns["rlnMtfFileName"] == ["/mtf/k3.star"]
    bare = msgspec.structs.replace(group, optics_group=2, mtf_path=None)
    assert "rlnMtfFileName" not in optics_table([group, bare]).columns


def test_defects_and_doses_that_the_acquisition_told():
    told = msgspec.structs.replace(
        MOVIE, defects_path="frames/defects.txt", frame_doses=((0.5, 3), (1.5, 2))
    )
    job = Options("motioncorr", {})
    ask = plan.motion_request(told, plan.movie_path(told), None, job, "MotionCorr/job002/")
    found = plan.as_taken(ask, told, job)
    assert (found.defect_path, found.defects_found) == ("Movies/frames/defects.txt", True)
    assert found.frame_doses == ((0.5, 3), (1.5, 2))
    typed = Options("motioncorr", {"fn_defect": "mine.txt"})
    ask = plan.motion_request(told, plan.movie_path(told), None, typed, "MotionCorr/job002/")
    found = plan.as_taken(ask, told, typed)
    assert (found.defect_path, found.defects_found) == ("mine.txt", False)


def test_where_a_job_keeps_its_gains():
    assert plan.gain_copy("Movies/g.mrc", "MotionCorr/job002/") == "MotionCorr/job002/gain.mrc"
    other = plan.gain_copy("Movies/b/g.dm4", "MotionCorr/job002/", is_usual=False)
    assert other == "MotionCorr/job002/gain_Movies_b_g_dm4.mrc"
    job = Options("motioncorr", {})
    ask = plan.motion_request(MOVIE, "Movies/a.tiff", "Movies/g.mrc", job, "MotionCorr/job002/")
    assert (ask.gain_path, ask.gain_name) == ("Movies/g.mrc", "MotionCorr/job002/gain.mrc")
    ask = plan.motion_request(MOVIE, "Movies/a.tiff", None, job, "MotionCorr/job002/")
    assert ask.gain_name is None
