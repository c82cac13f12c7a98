"""What a site opens by itself: running sessions, each once, none that a person has opened."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mdcatch.launch.found import Found, from_document
from mdcatch.launch.policy import Policy, command_id, known_sessions, plans
from mdcatch.launch.request import KIND, to_arguments
from mdcatch.roots import RootConfig
from mdcatch.sessions import SessionScanner
from services.kit.commands import Answer, Command, Exchange
from services.kit.sitetables import Defaults, Site
from tests.launching import session

SITE = Site(defaults=Defaults(projects="/projects", particle_diameter_A=150.0, symmetry="D2"))
ONE = Found(name="one", raw="/raw/one", exposures=10, started="2026-11-20T10:00:00")
TWO = Found(name="two", raw="/raw/two", exposures=10, started="2026-11-20T11:00:00")


def opened(now, before=None, known=(), taken=(), **policy):
    """Return the names of the sessions that are opened."""
    found = plans(Policy(**policy), SITE, now, before or {}, known, taken)
    return [plan.session.name for plan in found]


def exchange(one, *, done=True, command_id="c", origin="operator", kind=KIND):
    arguments = {"raw": one.raw, "project": "/p", "origin": origin}
    command = Command(id=command_id, kind=kind, arguments=arguments)
    return Exchange(command=command, answer=Answer(id=command_id, done=done, text="", at=1.0))


def test_what_grows_is_opened_and_what_is_old_is_not():
    before = {ONE.identity: 10, TWO.identity: 9}
    assert opened([ONE, TWO], before) == ["two"]
    assert opened([ONE, TWO], {}) == ["one", "two"]  # both have come since the first look
    assert opened([], {}) == []


def test_a_few_exposures_may_be_a_test():
    small = Found(name="small", raw="/raw/small", exposures=2)
    assert opened([small]) == []
    assert opened([small], at_least=2) == ["small"]


def test_names_are_chosen_by_pattern():
    assert opened([ONE, TWO], only=("t*",)) == ["two"]
    assert opened([ONE, TWO], never=("t*",)) == ["one"]
    assert opened([ONE, TWO], only=("*",), never=("*",)) == []


def test_a_few_at_a_time_the_oldest_first():
    assert opened([TWO, ONE], at_most=1) == ["one"]


def test_a_session_with_a_project_is_left_alone():
    assert opened([Found(name="x", raw="/raw/x", exposures=9, project="/projects/x")]) == []


def test_the_sites_defaults_are_the_request():
    (plan,) = plans(Policy(), SITE, [ONE], {}, ())
    assert plan.request is not None
    assert to_arguments(plan.request) == {
        "raw": "/raw/one",
        "project": "/projects/one",
        "particle_diameter_A": 150.0,
        "symmetry": "D2",
        "origin": "automatic",
    }


def test_movies_in_another_tree():
    apart = Found(name="x", raw="/meta/x", movies="/movies/x", exposures=9)
    (plan,) = plans(Policy(), SITE, [apart], {}, ())
    assert plan.request is not None and plan.request.movies == "/movies/x"


def test_project_folders_are_safe_and_free():
    odd = Found(name="../a b;rm -rf $HOME", raw="/raw/odd", exposures=9)
    (plan,) = plans(Policy(), SITE, [odd], {}, ())
    assert plan.request is not None and plan.request.project == "/projects/a_b_rm_-rf_HOME"
    first, second = plans(
        Policy(), SITE, [ONE, Found(name="one", raw="/other/one", exposures=9)], {}, ()
    )
    assert first.request is not None and second.request is not None
    assert first.request.project != second.request.project
    (third,) = plans(Policy(), SITE, [ONE], {}, (), {"/projects/one"})
    assert third.request is not None and third.request.project.startswith("/projects/one_")
    (empty,) = plans(Policy(), SITE, [Found(name="...", raw="/r/x", exposures=9)], {}, ())
    assert empty.request is not None and empty.request.project == "/projects/session"


def test_a_session_that_cannot_be_asked_for_is_told():
    (plan,) = plans(Policy(), SITE, [Found(name="x", raw="relative", exposures=9)], {}, ())
    assert plan.request is None and "raw" in plan.problem


def test_a_renamed_session_keeps_its_id():
    before = Found(name="a", raw="/raw/a", key="EPU 2026-11-20T10:00", exposures=9)
    after = Found(name="a_apo", raw="/raw/a_apo", key="EPU 2026-11-20T10:00", exposures=12)
    assert command_id(before) == command_id(after)
    known = known_sessions([exchange(before, command_id=command_id(before), origin="automatic")])
    assert opened([after], {}, known) == []


def test_what_was_opened_or_refused_is_not_opened_again():
    assert opened([ONE], {}, known_sessions([exchange(ONE)])) == []
    automatic = exchange(ONE, done=False, origin="automatic", command_id=command_id(ONE))
    assert opened([ONE], {}, known_sessions([automatic])) == []
    waiting = Command(id="c", kind=KIND, arguments={"raw": ONE.raw, "project": "/p"})
    assert opened([ONE], {}, known_sessions([], [waiting, None])) == []


def test_a_persons_refused_try_leaves_the_session_free():
    assert opened([ONE], {}, known_sessions([exchange(ONE, done=False)])) == ["one"]
    assert opened([ONE], {}, known_sessions([exchange(ONE, kind="other")])) == ["one"]


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 8), st.integers(0, 40)), max_size=6, unique_by=lambda x: x[0]
        ),
        min_size=1,
        max_size=12,
    ),
    st.sets(st.integers(0, 11)),
)
def test_whatever_is_seen_and_whenever_it_restarts_no_session_is_opened_twice(looks, restarts):
    """Looks at random lists; the daemon forgets its first look at a restart, never the record."""
    exchanges, first = [], None
    for number, look in enumerate(looks):
        now = [Found(name=f"s{n}", raw=f"/raw/s{n}", exposures=count) for n, count in look]
        if first is None or number in restarts:
            first = {one.identity: one.exposures for one in now}
        for plan in plans(Policy(at_most=3), SITE, now, first, known_sessions(exchanges)):
            assert plan.session.exposures > first.get(plan.session.identity, 0)
            done = number % 2 == 0
            exchanges.append(
                exchange(plan.session, done=done, origin="automatic", command_id=plan.command_id)
            )
    ids = [one.answer.id for one in exchanges]
    assert len(ids) == len(set(ids))


def test_the_list_is_read_as_it_is_printed():
    row = {"name": "x", "raw": "/raw/x", "exposures": 3, "started": None, "more": [1]}
    for document in ([row], {"sessions": [row]}):
        (found,) = from_document(document)
        assert (found.name, found.exposures, found.started, found.identity) == (
            "x",
            3,
            "",
            "/raw/x",
        )
    (found,) = from_document([{"raw": "/raw/some"}])
    assert found.name == "some"
    assert from_document([]) == from_document({"sessions": None}) == []


def test_the_scanners_sessions_are_read(tmp_path):
    """What the scanner finds on a disk becomes the same session here, and can be asked for."""
    raw = session(tmp_path / "Supervisor_20261120_101500_apo")
    (tmp_path / "Supervisor_20261121_080000_empty").mkdir()
    listed = SessionScanner([RootConfig(path=str(tmp_path))]).scan()
    document = msgspec.json.decode(msgspec.json.encode({"sessions": listed}))
    found = {one.name: one for one in from_document(document)}
    apo, empty = found[raw.name], found["Supervisor_20261121_080000_empty"]
    assert (apo.raw, apo.exposures, apo.software, apo.movies) == (str(raw), 1, "EPU", "")
    assert apo.metadata.endswith(".xml") and apo.movie.endswith("_fractions.tiff")
    assert apo.key and (empty.state, empty.exposures) == ("empty", 0)
    planned = plans(Policy(at_least=1), SITE, found.values(), {}, ())
    assert [plan.request and plan.request.raw for plan in planned] == [str(raw)]
