"""The shipped Schemes and their settings, and the command line that shows them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemer import check, jobs, starfile, store, templates
from schemer.cli import app
from schemer.errors import SchemeError
from schemer.jobs import JobFile
from schemer.resolve import fill_options
from schemer.state import initial
from schemer.world import ProjectWorld
from tests.shared import shared


@pytest.mark.parametrize("name", templates.NAMES)
def test_names_and_graph_are_relions(tmp_path, name):
    ours = starfile.load(templates.install(tmp_path, name))
    theirs = starfile.load(shared(f"data/schemes/relion-5.0.1/{name}"))
    assert ours.operators == theirs.operators
    assert ours.jobs == theirs.jobs
    assert ours.edges == theirs.edges
    for kind in ("floats", "bools", "strings"):
        assert set(getattr(ours, kind)) == set(getattr(theirs, kind))
    for job in ours.jobs:
        options = JobFile.load(tmp_path / "Schemes" / name / job / "job.star").options
        original = JobFile.load(shared(f"data/schemes/relion-5.0.1/{name}/{job}/job.star"))
        for option, value in original.options.items():
            if value.startswith(("Schemes/", "$$")) and option in options:
                assert options[option] == value
    assert check.errors(ours) == []


# The documented differences

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "schemes.md"


def rows(mark: str) -> list[list[str]]:
    """Return the cells of a table in the page, without quotes."""
    text = PAGE.read_text(encoding="utf-8").split(f"<!-- {mark} -->")[1].split("<!-- end -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip().replace("`", "") for cell in line[1:-1].split("|")] for line in lines]


def shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def differences(name: str) -> Iterator[tuple[str, str, str, str, str]]:
    theirs = templates.read(shared(f"data/schemes/relion-5.0.1/{name}"))
    ours = templates.shipped(name)
    for field in ("floats", "bools", "strings"):
        for variable, one in getattr(theirs.scheme, field).items():
            other = getattr(ours.scheme, field)[variable]
            assert (one.value, other.value) == (one.reset, other.reset)
            if one != other:
                yield name, "variable", variable, shown(one.value), shown(other.value)
    for job, file in theirs.jobs.items():
        for option in file.type.options:
            one, other = file.options[option], ours.jobs[job].options[option]
            if one != other:
                yield name, job, option, shown(one), shown(other)


def test_the_table_of_differences_is_complete_and_true():
    found = {row for name in templates.NAMES for row in differences(name)}
    jobs = {(name, job) for name in templates.NAMES for job in templates.shipped(name).jobs}
    documented = set()
    for scheme, job, option, relion, here, why in rows("differences"):
        places = sorted(jobs) if (scheme, job) == ("all", "all") else [(scheme, job)]
        documented |= {(*place, option, relion, here) for place in places}
        assert why, f"{option}: say why"
    assert documented == found


def test_the_options_that_are_left_out_are_listed():
    found = set()
    for name in templates.NAMES:
        for job, file in templates.read(shared(f"data/schemes/relion-5.0.1/{name}")).jobs.items():
            _, dead = file.type.complete(file.options)
            if dead:
                found.add((name, job, ", ".join(dead)))
            assert not set(dead) & set(templates.shipped(name).jobs[job].options)
    assert {tuple(row) for row in rows("left out")} == found


@pytest.mark.parametrize("name", templates.NAMES)
def test_the_shipped_schemes_ask_for_no_graphics_card_and_no_mpi(name):
    for job, file in templates.shipped(name).jobs.items():
        assert file.options.get("use_gpu", "No") == "No"
        assert file.options.get("do_queue") == "No"
        assert job == "refine3d" or file.options.get("nr_mpi", "1") == "1"
    assert templates.shipped("proc").scheme.bools["do_log"].value is True


@pytest.mark.parametrize("name", templates.OWN)
def test_a_scheme_of_our_own_is_sound_and_runs_anywhere(tmp_path, name):
    templates.install(tmp_path, "proc")  # whose particles it takes
    scheme = starfile.load(templates.install(tmp_path, name))
    assert check.errors(scheme) == []
    for job in scheme.jobs:
        content = JobFile.load(tmp_path / "Schemes" / name / job / "job.star")
        kind = jobs.find(content.label)
        assert set(content.options) == set(kind.options)
        assert content.options.get("use_gpu", "No") == "No"
        assert content.options.get("nr_mpi", "1") == "1"
        filled = fill_options(
            content.options, kind.kinds, scheme.name, initial(scheme), ProjectWorld(tmp_path)
        )
        assert not any("$$" in value for value in filled.options.values())
    proc = templates.shipped("proc").scheme
    shared_names = set(scheme.floats) & set(proc.floats)
    assert {"min_nr_parts_3d", "current_nr_parts"} <= shared_names
    for variable in shared_names:
        assert scheme.floats[variable] == proc.floats[variable]


def test_a_scheme_that_runs_is_not_changed(tmp_path):
    folder = templates.install(tmp_path, "prep")
    before = {path: path.read_bytes() for path in folder.rglob("*.star")}
    changes = {"prep__wait_sec": "5", "prep__ctffind__box": "1024"}
    with store.run_lock(tmp_path, folder, strict=False):
        with pytest.raises(SchemeError, match="is running"):
            templates.install(tmp_path, "prep", changes)
        assert {path: path.read_bytes() for path in folder.rglob("*.star")} == before
        templates.install(tmp_path, "prep")  # nothing to change
    templates.install(tmp_path, "prep", changes)
    assert starfile.load(folder).floats["wait_sec"].value == 5.0


@pytest.mark.parametrize("name", templates.NAMES)
def test_every_job_can_be_filled_and_has_all_options(tmp_path, name):
    templates.install(tmp_path, "prep")
    scheme = starfile.load(templates.install(tmp_path, name))
    for job in scheme.jobs:
        content = JobFile.load(tmp_path / "Schemes" / name / job / "job.star")
        kind = jobs.find(content.label)
        assert set(content.options) == set(kind.options)
        filled = fill_options(
            content.options, kind.kinds, scheme.name, initial(scheme), ProjectWorld(tmp_path)
        ).options
        assert not any("$$" in value for value in filled.values())
        assert kind.output_nodes(filled)


def test_settings_reach_options_and_variables(tmp_path):
    settings = {
        "prep__motioncorr__fn_gain_ref": "Movies/gain.mrc",
        "prep__motioncorr__do_save_noDW": "false",
        "prep__wait_sec": "30",
        "proc__min_nr_parts_3d": "1000",
        "proc__do_log": "no",
        "proc__iniref": "ref.mrc",
    }
    prep = templates.install(tmp_path, "prep", settings)
    proc = starfile.load(templates.install(tmp_path, "proc", settings))
    options = JobFile.load(prep / "motioncorr" / "job.star").options
    assert options["fn_gain_ref"] == "Movies/gain.mrc" and options["do_save_noDW"] == "No"
    assert starfile.load(prep).floats["wait_sec"].reset == 30.0
    assert proc.floats["min_nr_parts_3d"].value == proc.floats["min_nr_parts_3d"].reset == 1000.0
    assert proc.bools["do_log"].value is False and proc.strings["iniref"].value == "ref.mrc"


def test_installing_again_keeps_edits_and_is_the_same(tmp_path):
    folder = templates.install(tmp_path, "prep", {"prep__ctffind__box": "1024"})
    before = {path: path.read_bytes() for path in folder.rglob("*.star")}
    assert len(before) == 4
    templates.install(tmp_path, "prep", {"prep__ctffind__resmax": "5"})
    assert {path: path.read_bytes() for path in folder.rglob("*.star")} == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prep__motioncor__fn_gain_ref": "x"}, "did you mean prep__motioncorr__fn_gain_ref"),
        ({"prep__motioncorr__fn_gain": "x"}, "did you mean prep__motioncorr__fn_gain_ref"),
        ({"prep__wait_sek": "1"}, "did you mean prep__wait_sec"),
        ({"zzz": "1"}, "no known key is like it"),
        ({"prep__wait_sec": "soon"}, "'soon' is not a number"),
        ({"prep__ctffind__box": "big"}, "'big' is not a number"),
        ({"prep__ctffind__use_noDW": "maybe"}, "write Yes or No"),
        ({"prep__motioncorr__fn_gain_ref": "a\nb"}, "line end"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(tmp_path, settings, words):
    with pytest.raises(SchemeError, match=words):
        templates.install(tmp_path, "prep", settings)
    assert not (tmp_path / "Schemes").exists()


def test_an_unknown_template_is_named(tmp_path):
    with pytest.raises(SchemeError, match="prep, proc"):
        templates.install(tmp_path, "tomo")


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_show_prints_graph_node_and_variables(tmp_path):
    templates.install(tmp_path, "prep")
    for result in (
        invoke("show", tmp_path / "Schemes/prep"),
        invoke("show", "--project", tmp_path, "--scheme", "prep"),
    ):
        assert result.exit_code == 0
        assert "Schemes/prep/ at WAIT" in result.stdout
        assert "importmovies" in result.stdout and "maxtime_hr" in result.stdout
    document = json.loads(invoke("show", tmp_path / "Schemes/prep", "--json").stdout)
    assert document["current_node"] == "WAIT"
    assert document["nodes"]["ctffind"]["next"] == {"": "WAIT"}
    assert document["variables"]["wait_sec"] == {"value": 180.0, "reset": 180.0}


def test_check_reports_and_its_exit_codes(tmp_path):
    folder = templates.install(tmp_path, "proc")
    good = invoke("check", folder)
    assert good.exit_code == 0 and "0 errors, 1 warnings" in good.stdout
    text = (folder / "scheme.star").read_text()
    (folder / "scheme.star").write_text(text.replace("bool=ge", "bool=gee"))
    bad = invoke("check", folder)
    assert bad.exit_code == 1 and "bool=gee" in bad.stdout
    assert json.loads(invoke("check", folder, "--json").stdout)["errors"]
    (folder / "scheme.star").write_text("nonsense\n")
    assert invoke("check", folder).exit_code == 1
    assert invoke("check", tmp_path / "gone").exit_code == 64
    assert invoke("show").exit_code == 64
    assert "Exit codes" in invoke("check", "--help").stdout
