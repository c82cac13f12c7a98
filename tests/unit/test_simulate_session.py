"""Sessions on disk: EPU's tree and XML, faults, pace and growth, and starting again."""

import dataclasses
import json
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from algorithms.formats import mrc, star
from algorithms.simulate.epu import plan_session, session_name
from algorithms.simulate.faults import FAULTS, Faults
from algorithms.simulate.movie import render_movie
from algorithms.simulate.recipe import Recipe, RecipeError, load_recipe
from algorithms.simulate.session import simulate_session
from algorithms.simulate.truth import read_movie_truth

SPACES = {
    "": "http://schemas.datacontract.org/2004/07/Fei.SharedObjects",
    "ar": "http://schemas.microsoft.com/2003/10/Serialization/Arrays",
    "om": "http://schemas.datacontract.org/2004/07/Fei.Applications.Common.Omp.Interface",
    "ty": "http://schemas.datacontract.org/2004/07/Fei.Types",
    "dr": "http://schemas.datacontract.org/2004/07/System.Drawing",
}
NAME = r"FoilHole_\d{8}_Data_\d{8}_\d{8}_\d{8}_\d{6}"


def small(**changes: object) -> Recipe:
    base = {"nx": 128, "ny": 96, "n_frames": 3, "n_particles": 3, "n_exposures": 5, "pool": 2}
    recipe = dataclasses.replace(load_recipe("tiny"), exposures_per_square=3, **base)
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def truth_of(out: Path) -> Path:
    return out.with_name(out.name + "_truth")


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    recipe = small(decoy_fraction=0.4, super_resolution_factor=2)
    out = tmp_path_factory.mktemp("simulated") / session_name(recipe)
    simulate_session(recipe, out, seed=9, realtime=False)
    return recipe, out


def test_tree_and_names_are_those_of_epu(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    assert re.fullmatch(r"Supervisor_20261120_100000_tiny", out.name)
    files = contents(out)
    assert "gain.mrc" in files
    wanted = rf"Images-Disc1/GridSquare_\d{{8}}/Data/{NAME}(\.xml|_fractions\.tiff)"
    others = [name for name in files if name != "gain.mrc"]
    assert len(others) == 2 * recipe.n_exposures
    assert all(re.fullmatch(wanted, name) for name in others)
    assert len({name.split("/")[1] for name in others}) == 2


def test_movies_are_lzw_tiff_with_rows_upside_down(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    first = plan_session(recipe, 9)[0]
    path = out / f"{first.movie}_fractions.tiff"
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == recipe.n_frames
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW  # type: ignore[union-attr]
    stored = tifffile.imread(path)
    rendered = render_movie(recipe, 9, index=0)
    assert np.array_equal(stored[:, ::-1], rendered.frames)
    assert np.array_equal(mrc.read(out / "gain.mrc"), rendered.gain)


def test_xml_is_consistent_with_movie_and_recipe(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    exposure = plan_session(recipe, 9)[1]
    root = etree.parse(str(out / f"{exposure.movie}.xml")).getroot()

    def text(path: str) -> str:
        found = root.findall(path, SPACES)
        assert len(found) == 1, path
        return found[0].text or ""

    def values(path: str) -> dict[str, etree._Element]:
        pairs = root.findall(f"{path}/ar:KeyValueOfstringanyType", SPACES)
        return {p.findtext("ar:Key", "", SPACES): p.find("ar:Value", SPACES) for p in pairs}

    camera = "microscopeData/acquisition/camera"
    inputs, custom = values(f"{camera}/CameraSpecificInput"), values("CustomData")
    factor = int(inputs["SuperResolutionFactor"].text)
    pixel_m = float(text("SpatialScale/pixelSize/x/numericValue"))
    assert factor == 2
    assert pixel_m / factor == pytest.approx(recipe.pixel_size_A * 1e-10)
    assert int(text(f"{camera}/ReadoutArea/dr:width")) * factor == recipe.nx
    assert int(text(f"{camera}/ReadoutArea/dr:height")) * factor == recipe.ny
    fractions = inputs["FractionationSettings"].findtext("om:NumberOffractions", "", SPACES)
    assert int(fractions) == recipe.n_frames
    assert inputs["ElectronCountingEnabled"].text == "true"
    dose = float(custom["Dose"].text)
    assert dose == pytest.approx(recipe.dose_per_frame_e_A2 * recipe.n_frames * 1e20)
    assert float(custom["DoseOnCamera"].text) == pytest.approx(dose * pixel_m**2)
    truth = read_movie_truth(truth_of(out) / exposure.stem)
    defocus_m = float(custom["AppliedDefocus"].text)
    assert defocus_m == pytest.approx(-truth.nominal_defocus_A * 1e-10)
    assert abs(-defocus_m * 1e10 - truth.defocus_u_A) < 3000
    assert text(f"{camera}/Name") == "EF-CCD"
    assert text("microscopeData/gun/AccelerationVoltage") == "300000"
    assert text("microscopeData/instrument/InstrumentID") == "3299"
    assert text("microscopeData/core/ApplicationSoftware") == "EPU"
    taken = text("microscopeData/acquisition/acquisitionDateTime")
    assert re.fullmatch(r"2026-11-20T10:\d\d:\d\d\.\d{7}\+00:00", taken)
    assert taken[11:19].replace(":", "") == exposure.stem[-6:]
    assert float(text("microscopeData/optics/BeamShift/ty:_x")) == pytest.approx(
        exposure.beam_shift[0]
    )
    for axis in "ABXYZ":
        float(text(f"microscopeData/stage/Position/{axis}"))


def test_beam_shifts_form_the_recorded_clusters() -> None:
    recipe = small(n_exposures=60, exposures_per_square=24, areas_per_hole=3, holes_per_stage=4)
    plan = plan_session(recipe, 2)
    groups = np.array([e.beam_shift_group for e in plan])
    shifts = np.array([e.beam_shift for e in plan])
    assert len(set(groups)) == 12
    gaps = np.hypot(*(shifts[:, None] - shifts[None]).transpose(2, 0, 1))
    same = groups[:, None] == groups[None]
    assert gaps[same].max() < 0.008
    assert gaps[~same].min() > 0.02


def test_truth_lists_every_particle_once_and_reuse_is_said(session: tuple[Recipe, Path]) -> None:
    recipe, out = session
    folder = truth_of(out)
    plan = plan_session(recipe, 9)
    table = star.load(folder / "particles_truth.star")["particles"]
    counts = [len(read_movie_truth(folder / e.stem).rot) for e in plan]
    assert len(table) == sum(counts) > 0
    assert set(table.strings("rlnMicrographName")) <= {e.movie for e in plan}
    headers = [json.loads((folder / f"{e.stem}.json").read_text()) for e in plan]
    assert [h["movie_index"] for h in headers] == [0, 1, 0, 1, 0]
    assert [h["movie"] for h in headers] == [e.movie for e in plan]
    assert len(headers[0]["global_shift_px"]) == recipe.n_frames
    assert len(headers[0]["local_coeff"]) == 36
    with np.load(folder / f"{plan[0].stem}.npz") as arrays:
        assert arrays["displacement_px"].shape == (counts[0], recipe.n_frames, 2)
        expected = headers[0]["global_shift_px"]
        assert arrays["displacement_px"][0] == pytest.approx(np.array(expected))
    assert not list(out.rglob("*.json"))


def test_same_seed_same_session(session: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, out = session
    again = tmp_path / out.name
    simulate_session(recipe, again, seed=9, realtime=False)
    assert contents(again) == contents(out)
    assert contents(truth_of(again)) == contents(truth_of(out))


def test_every_fault_spoils_what_it_says(tmp_path: Path) -> None:
    faults = Faults(**{kind: (n,) for n, kind in enumerate(FAULTS)})
    recipe = small(n_exposures=len(FAULTS) + 1, pool=1, faults=faults)
    out = tmp_path / "session"
    simulate_session(recipe, out, seed=1, realtime=False)
    plan = {e.fault: e for e in plan_session(recipe, 1)}
    whole = (out / f"{plan[None].movie}_fractions.tiff").read_bytes()

    def movie(fault: str) -> Path:
        return out / f"{plan[fault].movie}_fractions.tiff"

    def xml(fault: str) -> Path:
        return out / f"{plan[fault].movie}.xml"

    cut = movie("truncated").read_bytes()
    assert 0 < len(cut) < len(whole)
    assert whole.startswith(cut)
    assert movie("zero_byte").read_bytes() == b""
    assert tifffile.imread(movie("wrong_size")).shape == (3, 48, 64)
    assert xml("wrong_size").exists()
    assert not movie("xml_only").exists()
    assert xml("xml_only").exists()
    assert movie("movie_only").read_bytes() == whole
    assert not xml("movie_only").exists()
    assert "<!DOCTYPE" in xml("doctype_xml").read_text()
    with pytest.raises(etree.XMLSyntaxError):
        etree.parse(str(xml("unreadable_xml")))
    for fault, exposure in plan.items():
        header = json.loads((truth_of(out) / f"{exposure.stem}.json").read_text())
        assert header["fault"] == fault


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def test_an_interrupted_session_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    recipe, whole, broken = small(), tmp_path / "whole", tmp_path / "broken"
    simulate_session(recipe, whole, seed=4, realtime=False)

    def stop(done: int, total: int, movie: str) -> None:
        if done == 3:
            raise Interrupted(movie)

    with pytest.raises(Interrupted):
        simulate_session(recipe, broken, seed=4, realtime=False, progress=stop)
    # The third exposure was cut in the middle of its movie.
    third = plan_session(recipe, 4)[2]
    (truth_of(broken) / f"{third.stem}.json").unlink()
    cut = broken / f"{third.movie}_fractions.tiff"
    cut.write_bytes(cut.read_bytes()[:1000])
    untouched = broken / f"{plan_session(recipe, 4)[0].movie}_fractions.tiff"
    before = untouched.stat().st_mtime_ns

    calls: list[tuple[int, int, str]] = []
    simulate_session(
        recipe, broken, seed=4, realtime=False, progress=lambda *call: calls.append(call)
    )
    assert contents(broken) == contents(whole)
    assert contents(truth_of(broken)) == contents(truth_of(whole))
    assert untouched.stat().st_mtime_ns == before
    assert [(done, total) for done, total, _ in calls] == [(n, 5) for n in range(1, 6)]


def test_another_recipe_or_seed_does_not_continue_a_session(tmp_path: Path) -> None:
    out = tmp_path / "session"
    simulate_session(small(n_exposures=1), out, seed=4, realtime=False)
    for recipe, seed in ((small(n_exposures=1), 5), (small(n_exposures=2), 4)):
        with pytest.raises(RecipeError, match="another recipe or seed"):
            simulate_session(recipe, out, seed=seed, realtime=False)
    shutil.rmtree(truth_of(out))
    simulate_session(small(n_exposures=2), out, seed=4, realtime=False)


def test_a_live_session_keeps_its_pace_and_movies_grow(tmp_path: Path) -> None:
    recipe = small(
        n_exposures=2, pace_s=0.6, pace_jitter=0.0, growth_s=0.4, growth_chunks=4, order="xml-first"
    )
    out = tmp_path / "session"
    first, second = (out / f"{e.movie}_fractions.tiff" for e in plan_session(recipe, 4))
    started: dict[Path, float] = {}
    sizes: set[int] = set()
    worker = threading.Thread(target=simulate_session, args=(recipe, out), kwargs={"seed": 4})
    worker.start()
    while worker.is_alive():
        for path in (first, second):
            if path.exists():
                started.setdefault(path, time.monotonic())
                # The XML was there before.
                assert next(path.parent.glob(path.name.replace("_fractions.tiff", ".xml")), None)
        if first.exists():
            sizes.add(first.stat().st_size)
        time.sleep(0.01)
    worker.join()
    assert len(sizes - {0}) >= 3
    assert max(sizes) == first.stat().st_size
    assert 0.5 < started[second] - started[first] < 3.0
