"""The launcher without a window: what is shown, what is checked, what is sent."""

import msgspec
import pytest

from mdcatch.launch.request import KIND
from mdcatch.launch.survey import Survey, around_of, from_document, known_of
from mdcatch.launcher import form
from mdcatch.launcher.looking import Lookup
from mdcatch.launcher.model import Model
from mdcatch.launcher.remote import Remote
from services.kit.commands import Inbox, Mailbox, Reply
from services.kit.errors import Misuse
from services.kit.sitetables import Defaults, Site
from tests.launching import K3, MOVIE, SITE, record, request

SESSIONS = [
    {"name": "apo", "raw": "/raw/apo", "exposures": 12, "started": "2026-11-20T10:15:00+01:00"},
    {"name": "ribosome", "raw": "/raw/ribosome", "exposures": 7, "started": "2026-11-21T08:00:00"},
]


class Answered:
    """A query that has its document after some looks, or a problem."""

    def __init__(self, document=None, problem="", looks=1):
        self.document, self.problem, self.looks, self.closed = document, problem, looks, False

    def poll(self, wait_s=0.0):
        self.looks -= 1
        if self.looks > 0:
            return None
        if self.problem:
            raise Misuse(self.problem)
        return self.document

    def close(self):
        self.closed = True


class World:
    """A site with sessions, and what a survey finds; a model that looks at it."""

    def __init__(self, tmp_path, site=SITE):
        self.mailbox = Mailbox(tmp_path / "commands")
        self.sessions, self.problem, self.asked, self.now = list(SESSIONS), "", [], 100.0
        self.survey = found()
        self.site = site
        self.model = Model(site, self, self.look, Remote(self.mailbox))

    def start(self):
        return Answered({"sessions": self.sessions}, self.problem)

    def look(self, request):
        self.asked.append(request)
        return Answered(msgspec.to_builtins(self.survey), looks=2)

    def settle(self, seconds=1.0):
        """Let time pass, in small steps."""
        for _ in range(10):
            self.now += seconds / 10
            self.model.tick(self.now)

    def chosen(self, raw="/raw/apo"):
        self.settle()
        self.model.choose(raw)
        self.settle()
        return self.model

    def serve(self, handle):
        """Do the commands that wait."""
        with Inbox(self.mailbox, handle) as inbox:
            return inbox.turn()


def found(**changes):
    fields = {
        "metadata_path": "/raw/apo/x.xml",
        "movie_path": f"/raw/apo/{MOVIE}",
        "metadata": record(**K3).as_json(),
        "header": record(
            "tiff", "movie", "header", n_frames=50, movie_size_px=(11520, 8184)
        ).as_json(),
        "gain": "/raw/apo/gain.tiff",
    }
    return Survey(**{**fields, **changes})


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.model.close()


def texts(doubts):
    return [doubt.text for doubt in doubts]


# ---- sessions


def test_the_sessions_are_listed_by_themselves(world):
    assert world.model.found == []
    assert world.model.tick(world.now) is True
    assert [one.name for one in world.model.found] == ["ribosome", "apo"]  # the newest first
    world.sessions = [*SESSIONS, {"name": "new", "raw": "/raw/new", "started": "2026-11-22"}]
    world.settle()
    assert len(world.model.found) == 2  # not before it is time
    world.settle(40.0)
    assert [one.name for one in world.model.found] == ["new", "ribosome", "apo"]


def test_a_list_that_cannot_be_had_is_told_and_the_old_one_stays(world):
    world.settle()
    world.problem = "the share does not answer"
    world.model.look_again()
    world.settle()
    assert world.model.sessions_problem == "the share does not answer"
    assert len(world.model.found) == 2
    world.problem, world.sessions = "", [{"name": 3}]
    world.model.look_again()
    world.settle()
    assert "no list of sessions" in world.model.sessions_problem


def test_a_folder_that_is_not_listed_can_be_chosen_and_stays(world):
    model = world.chosen("/elsewhere/mine/")
    assert model.chosen is not None and model.chosen.raw == "/elsewhere/mine"
    assert [one.name for one in model.found] == ["mine", "ribosome", "apo"]
    world.settle(40.0)
    assert [one.name for one in model.found] == ["mine", "ribosome", "apo"]


def test_a_new_choice_has_a_new_project_and_keeps_the_rest(world):
    model = world.chosen()
    assert model.texts["project"] == "/var/lib/coldstream/apo"
    model.put("particle_diameter_A", "180")
    model.put("project", "/projects/mine")
    model.choose("/raw/apo")  # the same again
    assert model.texts["project"] == "/projects/mine"
    model.choose("/raw/ribosome")
    assert model.texts["project"] == "/var/lib/coldstream/ribosome"
    assert model.texts["particle_diameter_A"] == "180"
    assert model.known is None and model.measured() == []


def test_the_site_fills_the_form_in(tmp_path):
    defaults = Defaults(projects="/projects", picker="topaz", particle_diameter_A=150.0)
    world = World(tmp_path, Site(defaults=defaults))
    model = world.chosen()
    assert model.texts["particle_diameter_A"] == "150" and model.texts["picker"] == "topaz"
    assert model.texts["project"] == "/projects/apo"


# ---- what was parsed


def test_values_with_units_and_sources(world):
    rows = {row.name: row[1:] for row in world.chosen().measured()}
    assert rows["voltage"] == ("300", "kV", "xml")
    assert rows["spherical aberration"] == ("2.7", "mm", "site")
    assert rows["pixel of the movies"] == ("0.53", "A", "xml")
    assert rows["pixel of the micrographs"] == ("1.06", "A", "movies binned by 2")
    assert rows["dose of a movie"] == ("50", "e/A^2", "xml")
    assert rows["frames"] == ("50", "", "header")
    assert rows["dose of a frame"] == ("1", "e/A^2", "computed")
    assert rows["size of the movie"] == ("11520 x 8184", "px", "header")
    assert rows["camera"] == ("BioQuantum K3", "", "xml")
    assert rows["magnification"] == ("81000", "x", "xml")
    assert rows["gain reference"][0] == "gain.tiff"


def test_what_nobody_says_is_shown_as_unknown(world):
    fields = {key: value for key, value in K3.items() if key != "total_dose_e_per_A2"}
    world.survey = found(metadata=record(**fields).as_json())
    rows = {row.name: row[1:] for row in world.chosen().measured()}
    assert rows["dose of a movie"] == ("unknown", "", "")
    assert "dose of a frame" not in rows


def test_an_eer_movie_is_shown_in_fractions(world):
    world.survey = found(
        movie_path="/raw/apo/a_EER.eer",
        header=record("eer", "movie", "header", n_frames=196).as_json(),
        metadata=record(**K3 | {"total_dose_e_per_A2": 28.5}).as_json(),
    )
    rows = {row.name: row.value for row in world.chosen().measured()}
    assert rows["EER fractions"] == "28 of 7 frames, 0 left over"
    assert rows["dose of a fraction"] == "1.0179"


def test_overrides_show_at_once(world):
    model = world.chosen()
    model.put("pixel_size_A", "0,6")  # a comma is a point
    rows = {row.name: row[1:] for row in model.measured()}
    assert rows["pixel of the movies"] == ("0.6", "A", "operator")
    assert rows["pixel of the micrographs"][0] == "1.2"
    model.put("dose_e_A2", "25")
    assert {row.name: row.value for row in model.measured()}["dose of a frame"] == "0.5"


def test_warnings_of_the_metadata_are_remarks(world):
    world.survey = found(
        header=record("tiff", "movie", "header", n_frames=40).as_json(),
        metadata=record(**K3, n_frames=50).as_json(),
        notes=("no gain reference was found (no file fits)",),
    )
    model = world.chosen()
    assert "the file has 40 frames, its metadata says 50" in texts(model.other_doubts())
    assert "no gain reference" in texts(model.doubts_of("gain"))[0]
    assert all(doubt.level == "warning" for doubt in model.other_doubts())


def test_a_session_that_cannot_be_read_says_why(world):
    world.survey = Survey(problem="/raw/apo is not a folder: give the session's folder")
    model = world.chosen()
    assert texts(model.other_doubts()) == [world.survey.problem]
    assert not model.can_go and model.measured() == []


# ---- boxes


def test_boxes_follow_every_key(world):
    model = world.chosen()
    assert model.boxes() == []
    seen = []
    for text in ("1", "18", "180", "180.", "180.5", "180.5x"):
        model.put("particle_diameter_A", text)
        seen.append([row.value for row in model.boxes()])
    assert seen[0] == []  # 1 A is no particle
    assert seen[2] == ["256 px", "96 px", "198 A"] == seen[3]
    assert seen[4] == ["256 px", "96 px", "199 A"]
    assert seen[5] == []
    model.put("particle_diameter_A", "180")
    model.put("pixel_size_A", "1.06")
    assert model.boxes()[0].value == "128 px"
    model.put("helical", "yes")
    names = [row.name for row in model.boxes()]
    assert names == ["Box", "Scaled to", "Mask", "Tube", "Distance"]


# ---- checks


def test_checks_stand_at_their_fields(world):
    model = world.chosen()
    model.put("pipeline", "relion")
    assert "give the particle's diameter" in texts(model.doubts_of("particle_diameter_A"))[0]
    for field, text, words in (
        ("particle_diameter_A", "wide", "'wide' is not a number"),
        ("particle_diameter_A", "5", "between 10 and 9999"),
        ("symmetry", "Q7", "Q7 does not fit: it has to be a point group"),
        ("pixel_size_A", "-1", "between 0.05 and 100"),
        ("dose_e_A2", "nan", "does not fit"),
        ("project", "relative", "an absolute path"),
        ("project", "", "give the folder"),
    ):
        before = model.texts[field]
        model.put(field, text)
        assert words in texts(model.doubts_of(field))[0]
        assert model.request is None and not model.can_go
        model.put(field, before)


def test_two_wrong_fields_are_both_told(world):
    model = world.chosen()
    model.put("particle_diameter_A", "x")
    model.put("symmetry", "Q7")
    assert model.doubts_of("particle_diameter_A") and model.doubts_of("symmetry")
    assert model.why_not_go == "2 things to correct."


def test_the_host_is_heard(world):
    world.survey = found(
        missing={"relion_schemer": "install it"}, project="/projects is not a folder"
    )
    model = world.chosen()
    assert texts(model.doubts_of("project")) == ["/projects is not a folder"]
    assert texts(model.doubts_of("pipeline")) == [
        "relion_schemer is not installed here: install it"
    ]


@pytest.mark.parametrize("choice", list(form.PIPELINES))
def test_every_pipeline_can_be_chosen(world, choice):
    model = world.chosen()
    model.put("particle_diameter_A", "180")
    model.put("pipeline", choice)
    world.settle()
    assert model.can_go
    assert model.request is not None
    expected = {"native": "native", "relion": "relion", "schemer": "relion", "scipion": "scipion"}
    assert model.request.pipeline == expected[choice]
    assert (model.request.runner == "schemer") == (choice == "schemer")


# ---- looking


def test_the_disks_are_looked_at_when_the_fingers_rest(world):
    model = world.chosen()
    model.put("particle_diameter_A", "180")
    world.settle()
    asked = len(world.asked)
    for text in ("/p", "/pr", "/pro", "/projects/x"):
        model.put("project", text)
        world.settle(0.1)
        assert model.why_not_go == "Looking at the disks ..." and not model.can_go
    assert len(world.asked) == asked
    world.settle()
    assert len(world.asked) == asked + 1 and world.asked[-1].project == "/projects/x"
    assert model.can_go


def test_the_first_exposure_is_waited_for(world):
    world.survey = Survey(notes=())
    model = world.chosen()
    model.put("pipeline", "relion")
    model.put("particle_diameter_A", "180")
    world.settle()
    assert "wait for the first one" in texts(model.other_doubts())[0]
    world.survey = found()
    world.settle(40.0)
    assert model.other_doubts() == [] and model.can_go


def test_half_a_form_is_enough_to_look(world):
    model = world.chosen()
    model.put("symmetry", "Q7")
    model.put("project", "nonsense")
    world.settle()
    assert world.asked[-1].symmetry == "C1" and world.asked[-1].project == "/raw/apo_project"


def test_a_lookup_ends_what_nobody_asks_any_more():
    made = []

    def start():
        made.append(Answered("document", looks=3))
        return made[-1]

    lookup = Lookup(start, 10.0)
    assert lookup.tick(0.0) is None and made == []  # nobody has asked
    lookup.ask()
    assert lookup.tick(0.0) is None and not lookup.is_current
    lookup.ask(0.5)
    assert lookup.tick(0.1) is None and made[0].closed and len(made) == 1
    assert lookup.tick(0.7) is None and len(made) == 2
    assert lookup.tick(0.8) is None
    news = lookup.tick(0.9)
    assert news is not None and news.document == "document" and lookup.is_current
    assert lookup.tick(5.0) is None and len(made) == 2
    assert lookup.tick(11.0) is None and len(made) == 3 and lookup.is_current
    lookup.close()
    assert made[2].closed


def test_a_lookup_that_cannot_start_is_news():
    def start():
        raise Misuse("no such program")

    lookup = Lookup(start, 10.0)
    lookup.ask()
    news = lookup.tick(0.0)
    assert news is not None and news.problem == "no such program"
    assert lookup.tick(1.0) is None


# ---- Go


def ready(world):
    model = world.chosen()
    model.put("particle_diameter_A", "180")
    model.put("pipeline", "relion")
    model.put("project", "/projects/apo")
    world.settle()
    assert model.can_go, texts(model.doubts)
    return model


def opened(command, attempt):
    return Reply("it runs", {"project": command.arguments["project"]})


def test_go_is_kept_until_a_daemon_comes(world):
    model = ready(world)
    assert model.line.text.startswith("reconnecting ... no daemon")
    model.go()
    assert "reconnecting ... 1 command kept" in model.line.text
    (waiting,) = world.mailbox.waiting()
    command = world.mailbox.command(waiting)
    assert command is not None and command.kind == KIND
    assert command.arguments == {
        "raw": "/raw/apo",
        "project": "/projects/apo",
        "pipeline": "relion",
        "particle_diameter_A": 180.0,
    }
    assert model.why_not_go == "Sent; the answer is awaited."
    model.go()  # a second click
    assert len(world.mailbox.waiting()) == 1
    world.serve(opened)
    world.settle()
    assert model.message == "it runs" and model.line.waiting == 0
    assert [answer.id for answer in model.answers] == [waiting]
    assert model.why_not_go == "Opened."
    assert model.project_of(model.found[1]) == "/projects/apo"


def test_while_a_daemon_runs_it_is_connected(world):
    model = ready(world)
    with Inbox(world.mailbox, opened) as inbox:
        world.settle()
        assert model.line == (True, 0, "connected")
        model.go()
        assert model.line.text == "1 command sent ..."
        inbox.turn()
        world.settle()
        assert model.line.text == "connected"
    assert model.tick(world.now) is True  # the daemon has ended
    assert model.line.text.startswith("reconnecting")


def test_a_refusal_can_be_corrected_and_sent_again(world):
    model = ready(world)
    model.go()

    def refuse(command, attempt):
        raise Misuse("not opened: the disk is full")

    world.serve(refuse)
    world.settle()
    assert model.message == "Not done: not opened: the disk is full"
    assert model.can_go and model.project_of(model.found[1]) == ""
    model.go()
    assert len(world.mailbox.waiting()) == 1


def test_a_command_that_cannot_be_written_is_not_sent(world, monkeypatch):
    model = ready(world)

    def full(command):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.mailbox, "send", full)
    model.go()
    assert model.message.startswith("Not sent: ") and "No space left" in model.message
    monkeypatch.undo()
    assert model.can_go
    model.go()
    assert len(world.mailbox.waiting()) == 1


def test_what_an_earlier_window_sent_is_looked_after(world):
    ready(world).go()
    world.model.close()
    later = Model(world.site, world, world.look, Remote(world.mailbox))
    assert "1 command kept" in later.line.text
    world.serve(opened)
    later.tick(world.now)
    assert later.message == "it runs"
    assert later.opened == {"/raw/apo": "/projects/apo"}


def test_an_opened_session_can_be_opened_elsewhere(world):
    model = ready(world)
    model.go()
    world.serve(opened)
    world.survey = found(project="/projects/apo is there and is not empty: choose another name")
    world.settle(20.0)
    assert model.doubts_of("project") == []  # of course it is there
    assert "the session is processed in /projects/apo" in texts(model.other_doubts())
    world.survey = found()
    model.put("project", "/projects/apo2")
    world.settle()
    assert model.can_go


def test_a_damaged_answer_does_not_end_the_window(world):
    model = ready(world)
    model.go()
    (sent,) = world.mailbox.waiting()
    (world.mailbox.done / f"{sent}.json").write_text("half")
    assert model.tick(world.now) is True
    assert model.message.startswith("Not readable: ") and "damaged" in model.message
    assert model.tick(world.now) is False  # told once


def test_nothing_is_sent_before_all_is_right(world):
    model = world.model
    model.go()
    assert model.why_not_go == "Choose a session."
    world.chosen().put("particle_diameter_A", "x")
    model.go()
    assert world.mailbox.waiting() == []


# ---- the survey


def test_a_survey_comes_back_from_its_document():
    asked = request(raw="/raw/apo", particle_diameter_A=180.0, gain="/mine.mrc", gain_flip=2)
    document = msgspec.json.decode(msgspec.json.encode(found(absent=("/x",), project="no")))
    seen = from_document(document)
    assert msgspec.json.encode(seen) == msgspec.json.encode(found(absent=("/x",), project="no"))
    told = known_of(seen, asked, SITE)
    assert (
        told.exposure.processing_pixel_A == 1.06 and told.exposure.sources["n_frames"] == "header"
    )
    assert str(told.files.gain) == "/mine.mrc" and told.files.gain_flip == 2
    assert around_of(seen).absent == {"/x"} and around_of(seen).project == "no"
    with pytest.raises(Misuse, match="cannot be read"):
        from_document({"metadata": 3})
    with pytest.raises(Misuse, match="another version"):
        known_of(found(metadata={"format": "x"}), asked, SITE)
    with pytest.raises(Misuse, match="voltage_kV"):
        wrong = record(**K3).as_json() | {"voltage_kV": -3.0}
        known_of(found(metadata=wrong), asked, SITE)
