"""The picture of a Scheme's graph: where everything stands, and what is drawn."""

import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from schemer import graph, picture, starfile
from schemer.graph import Exit, layout
from schemer.scheme import UNDEFINED, BoolVariable, Edge, JobRow, Operator, Scheme
from tests.shared import shared

TEMPLATES = files("schemer") / "templates"
NESTED = Scheme(
    name="Schemes/nested/",
    current_node="job1",
    bools={name: BoolVariable(name != "big", False) for name in ("big", "ok", "done")},
    operators={
        "WAIT": Operator("wait", "undefined", "wait_sec"),
        "OUTER": Operator("bool=gt", "big", "x", "y"),
        "EXIT": Operator("exit"),
        "INNER": Operator("float=plus", "x", "x", "one"),
        "LOST": Operator("float=set", "x", "y"),
    },
    jobs={
        "job1": JobRow("Class2D/job007/", "new", True),
        "job2": JobRow("job2", "continue"),
    },
    edges=(
        Edge("WAIT", "OUTER"),
        Edge("OUTER", "INNER", True, "EXIT", "big"),
        Edge("INNER", "job1"),
        Edge("job1", "INNER", True, "job2", "ok"),
        Edge("job2", "OUTER", True, "WAIT", "done"),
    ),
)


def chain(count):
    names = [f"N{number:03d}" for number in range(count)]
    return Scheme(
        name="Schemes/chain/",
        current_node=names[0],
        operators={name: Operator("float=set", "a", "b") for name in names},
        edges=tuple(map(Edge, names, [*names[1:], names[0]])),
    )


@pytest.fixture(scope="module", autouse=True)
def fonts():
    """Load the fonts, whose files matplotlib keeps open."""
    picture.draw(NESTED, "png")


def text_of(scheme, **options):
    """Return the texts of the SVG, which matplotlib repeats as comments."""
    svg = picture.draw(scheme, **options).decode()
    ElementTree.fromstring(svg)  # noqa: S314 - our own
    return [line.strip()[5:-4] for line in svg.splitlines() if line.strip().startswith("<!-- ")]


# Order and ways


def test_order_is_that_of_the_walk_with_true_branches_first():
    reached, rest = graph.order(NESTED)
    assert reached == ["WAIT", "OUTER", "EXIT", "INNER", "job1", "job2"]
    assert rest == ["LOST"]


def test_order_of_the_proc_scheme_ends_with_what_no_path_visits():
    scheme = starfile.read(shared("data/schemes/relion-5.0.1/proc"))
    reached, rest = graph.order(scheme)
    assert reached[:4] == ["WAIT", "EXIT_maxtime", "HAS_ctffind", "select_mics"]
    assert rest == ["HAS_topaz_model"]
    assert len(reached) == 19


def test_a_current_node_that_the_start_does_not_reach_is_reached():
    reached, rest = graph.order(structs.replace(NESTED, current_node="LOST"))
    assert reached[-1] == "LOST" and not rest


def test_exits_say_which_way_is_taken_now():
    ways = graph.exits(NESTED)
    assert ways["OUTER"] == (Exit("EXIT", "big", True, False), Exit("INNER", "big", False, True))
    assert [one.condition for one in ways["OUTER"]] == ["big", "not big"]
    assert ways["WAIT"] == (Exit("OUTER"),)
    assert "EXIT" not in ways


def test_of_two_edges_from_a_node_the_last_counts():
    twice = structs.replace(NESTED, edges=(*NESTED.edges, Edge("WAIT", "EXIT")))
    assert graph.exits(twice)["WAIT"] == (Exit("EXIT"),)


def test_a_fork_without_its_boolean_is_taken_as_false():
    ways = graph.exits(structs.replace(NESTED, bools={}))
    assert [one.taken for one in ways["job1"]] == [False, True]


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("WAIT", "wait wait_sec"),
        ("OUTER", "bool=gt x, y -> big"),
        ("EXIT", "exit"),
        ("job1", "job, new, Class2D/job007/, Running"),
        ("job2", "job, continue, not started"),
        ("nowhere", "neither an operator nor a job"),
    ],
)
def test_what_a_node_is(node, text):
    assert graph.what(NESTED, node, {"Class2D/job007/": "Running"}) == text


# Places


def test_back_jumps_run_on_the_left_and_forward_jumps_on_the_right():
    jumps = {(j.source.node, j.target.node): j for j in layout(NESTED).jumps}
    assert jumps["OUTER", "INNER"].side == "right"
    assert {pair for pair, jump in jumps.items() if jump.side == "left"} == {
        ("job1", "INNER"),
        ("job2", "OUTER"),
        ("job2", "WAIT"),
    }
    inner, outer, outermost = (
        jumps[pair].lane for pair in (("job1", "INNER"), ("job2", "OUTER"), ("job2", "WAIT"))
    )
    assert inner < outer < outermost


def test_jumps_to_one_node_share_a_lane():
    scheme = starfile.read(shared("data/schemes/relion-5.0.1/proc"))
    home = [jump for jump in layout(scheme).jumps if jump.target.node == "WAIT"]
    assert len(home) == 4
    assert len({jump.lane for jump in home}) == 1


@st.composite
def schemes(draw):
    names = [f"n{number}" for number in range(draw(st.integers(1, 14)))]
    any_node = st.sampled_from([*names, UNDEFINED, "missing"])
    edges = [
        draw(
            st.builds(
                Edge, st.just(name), any_node, st.booleans(), any_node, st.sampled_from(["b", "c"])
            )
        )
        for name in draw(st.lists(st.sampled_from(names), max_size=20))
    ]
    split = draw(st.integers(0, len(names)))
    return Scheme(
        name="Schemes/any/",
        current_node=draw(any_node),
        bools={"b": BoolVariable(draw(st.booleans()), False)},
        operators={name: Operator("bool=and", "b", "b", "b") for name in names[:split]},
        jobs={name: JobRow(name, "new") for name in names[split:]},
        edges=tuple(edges),
    )


@given(schemes())
def test_every_node_has_a_place_of_its_own_and_no_lane_two_lines(scheme):
    plan = layout(scheme)
    nodes = [place.node for place in plan.places]
    assert {*scheme.operators, *scheme.jobs} <= {*nodes}
    assert len(nodes) == len({*nodes})
    for above, below in zip(plan.places, plan.places[1:], strict=False):
        assert above.bottom + graph.GAP <= below.top
    spans = {}
    for jump in plan.jumps:
        rows = sorted((jump.source.row, jump.target.row))
        assert jump.side == ("left" if jump.target.row <= jump.source.row else "right")
        spans.setdefault((jump.side, jump.lane), []).append((jump.target.node, *rows))
    for lines in spans.values():
        for target, first, last in lines:
            for other, begin, end in lines:
                assert other == target or end < first or last < begin


# Pictures


def test_the_svg_shows_names_forks_and_the_current_node():
    texts = text_of(NESTED, statuses={"Class2D/job007/": "Running"})
    assert texts.count("current") == 1
    for text in ("WAIT", "OUTER", "job1", "LOST", "at job1", "big is false", "ok is true"):
        assert text in texts
    assert "job, new, Class2D/job007/, Running" in texts
    assert "job, continue, not started" in texts


def test_the_same_scheme_gives_the_same_bytes():
    assert picture.draw(NESTED) == picture.draw(NESTED)
    assert picture.draw(NESTED, "png") == picture.draw(NESTED, "png")


def test_an_end_of_the_run_is_marked():
    scheme = structs.replace(NESTED, edges=(Edge("WAIT", "job1"), Edge("job1", UNDEFINED)))
    assert text_of(scheme).count("end") == 1
    assert text_of(structs.replace(NESTED, edges=(Edge("WAIT", "job1"),))).count("end") == 1
    fork = Edge("WAIT", "job1", True, UNDEFINED, "ok")
    assert "true" in text_of(structs.replace(NESTED, edges=(fork, Edge("job1", "WAIT"))))


@pytest.mark.parametrize("name", ["a<b>&$$x_$y$", "電子--x", "a\x1b[31mb", "n" * 500])
def test_odd_names_are_drawn(name):
    scheme = structs.replace(
        NESTED, operators={name: Operator("wait")}, current_node=name, edges=(Edge(name, name),)
    )
    svg = picture.draw(scheme).decode()
    ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert picture.draw(scheme, "png").startswith(b"\x89PNG")


def test_a_scheme_without_nodes_or_edges_is_drawn_too():
    text_of(Scheme(name="Schemes/empty/"))
    text_of(structs.replace(NESTED, edges=(), current_node=UNDEFINED))


def size(png):
    return struct.unpack(">II", png[16:24])


def test_forty_nodes_fit_a_picture_that_can_be_read():
    width, height = size(picture.draw(chain(40), "png"))
    assert width < 1000 and 3000 < height < 5000  # one column, 144 pixels per inch


def test_a_scheme_of_any_size_stays_within_what_can_be_drawn(monkeypatch):
    monkeypatch.setattr(picture, "MAX_PIXELS", 1500)
    _, height = size(picture.draw(chain(40), "png"))
    assert 1400 < height <= 1500


def test_height_of_a_node_grows_down_the_page():
    heights = [picture.height_of(NESTED, node) for node in graph.nodes(NESTED)]
    assert heights == sorted(heights)
    assert 0 < heights[0] < 0.2 and 0.8 < heights[-1] < 1
    assert picture.height_of(NESTED, "nowhere") == 0


@pytest.mark.parametrize("name", ["prep", "proc"])
def test_our_own_schemes_are_drawn(name):
    scheme = starfile.read(Path(str(TEMPLATES / name)))
    texts = text_of(scheme)
    assert {*scheme.operators, *scheme.jobs} <= {*texts}


def test_matplotlib_is_loaded_for_drawing_only_and_pyplot_never():
    code = (
        "import sys; from schemer import picture, scheme; assert 'matplotlib' not in sys.modules;"
        "picture.draw(scheme.Scheme(name='Schemes/x/'), 'png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# `schemer show`


def show(*words):
    command = [sys.executable, "-m", "schemer", "show", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "Schemes" / "nested"
    folder.mkdir(parents=True)
    (folder / "scheme.star").write_text(starfile.dump(NESTED))
    return tmp_path


def test_show_draws_into_the_files_that_are_named(project):
    svg, png = project / "a.svg", project / "deep" / "b.png"
    done = show("--project", project, "--scheme", "nested", "--svg", svg, "--png", png)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "current" in svg.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_show_prints_the_graph_when_no_file_is_named(project):
    done = show(project / "Schemes" / "nested")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["*", "job1", "job,", "new,", "Class2D/job007/", "job2", "if", "ok"] in lines
    assert ["INNER", "if", "not", "ok"] in lines


def test_show_says_why_a_picture_cannot_be_written(project):
    done = show(project / "Schemes" / "nested", "--svg", project / "Schemes")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_show_wants_one_scheme(project):
    assert show("--project", project).returncode == 64
    done = show("--project", project, "--scheme", "other")
    assert done.returncode == 64
    assert "there are nested" in done.stderr
