"""What is true of classes, their labels, and a job of the training set from end to end."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.ranker.targets import BASES
from algorithms.ranker.trainingset import __main__ as command
from algorithms.ranker.trainingset import catalogue, make, plan, records
from algorithms.ranker.trainingset.domains import rotations
from algorithms.ranker.trainingset.labels import (
    VERSION,
    Truth,
    is_stale,
    labelled,
    rare_views,
    relabelled,
)
from algorithms.ranker.trainingset.matching import Matcher, crossing
from algorithms.ranker.trainingset.projecting import (
    Projector,
    image_of,
    rotated_in_plane,
    shift_phases,
)
from algorithms.ranker.trainingset.records import TAGS
from algorithms.ranker.trainingset.settings import Setting
from algorithms.ranker.types import RankerError

KEPT = Path(__file__).resolve().parents[1] / "data" / "trainingset"
BOX, PIXEL_A = 48, 3.5
PLACE = {tag: place for place, tag in enumerate(TAGS)}


def truth(rows: Sequence[tuple[Mapping[str, float], float, float, float]]) -> Truth:
    """Return truth of classes: particles by tag, resolution, offset, share of neighbours."""
    counts = np.zeros((len(rows), len(TAGS)))
    for row, (tags, *_) in enumerate(rows):
        for tag, count in tags.items():
            counts[row, PLACE[tag]] = count
    resolution = np.array([row[1] for row in rows])
    return Truth(
        counts=counts,
        resolution_A=resolution,
        finest_A=resolution,
        offset=np.array([row[2] for row in rows]),
        neighbour=np.array([row[3] for row in rows]),
        size=counts.sum(1),
        stale=np.zeros(len(rows), bool),
    )


ROWS = [
    (({"T": 90, "P": 10}, 8.0, 0.01, 0.0), 1),
    (({"T": 95, "C": 5}, 12.0, 0.05, 0.0), 1),
    (({"T": 95, "C": 5}, 14.0, 0.05, 0.0), 5),  # above 1.6 times the best
    (({"T": 95}, 8.5, 0.1, 0.0), 5),  # not in the middle
    (({"T": 70, "P": 30}, 8.0, 0.02, 0.0), 5),
    (({"T": 90, "N": 10}, 25.0, 0.02, 0.0), 2),  # too blurred
    (({"T": 55, "O": 45}, 10.0, 0.02, 0.0), 2),
    (({"T": 30, "C": 70}, 12.0, 0.05, 0.0), 3),
    (({"T": 90}, 9.0, 0.3, 0.0), 3),  # far beside the middle
    (({"T": 90, "B": 10}, 9.0, 0.02, 0.4), 3),  # a neighbour carries the signal
    (({"T": 90}, 60.0, 0.02, 0.0), 0),  # not to be recognised
    (({"I": 40}, np.inf, np.nan, 0.0), 0),
]


def test_labels_follow_the_table():
    found = labelled(truth([row for row, _ in ROWS]))
    assert found.label.tolist() == [label for _, label in ROWS]
    assert found.best_A == 8.0
    assert found.job_score == pytest.approx((25.0 - 8.0) / 19.0)
    base = np.array([BASES.get(int(one), 0.0) for one in found.label])
    rated = found.label > 0
    share = np.array([(8.0 / row[1]) ** 2 for row, _ in ROWS])
    np.testing.assert_allclose(found.w[rated], np.minimum(1.0, share[rated]))
    np.testing.assert_allclose(
        found.y, np.where(rated, found.job_score * (base + 0.25 * found.w), 0.0), atol=1e-12
    )
    assert found.y[found.label == 0].tolist() == [0.0, 0.0]


def test_labels_of_kept_records_are_those_of_the_frozen_rule():
    """The cut-offs may not move: models name the rule's version."""
    paths = records.listing(KEPT)
    assert {records.read(path).part for path in paths} == {"train", "validation", "test"}
    for path in paths:
        one = records.read(path)
        found = relabelled(one)
        assert json.loads(one.configuration)["labels"] == VERSION
        np.testing.assert_array_equal(found.label, one.label)
        np.testing.assert_allclose(found.y, one.y, atol=1e-12)
        np.testing.assert_allclose(found.w, one.w, atol=1e-12)
        assert found.job_score == pytest.approx(one.job_score)


def test_the_best_class_of_scores_is_that_of_labels():
    # The finest class is too impure for the best one, and the best one has label 5.
    rows = [
        ({"T": 70, "O": 30}, 9.0, 0.02, 0.0),
        ({"T": 55, "O": 45}, 7.0, 0.02, 0.0),
        ({"T": 90}, 12.0, 0.02, 0.0),
    ]
    found = labelled(truth(rows))
    assert found.best_A == 9.0 and found.label.tolist() == [5, 2, 1]
    np.testing.assert_allclose(found.w, [1.0, 1.0, 0.5625])
    none = labelled(truth([({"T": 3}, 0.0, 0.0, 0.0)]))  # too small to be the best of a job
    assert none.w.tolist() == [0.0] and np.isfinite(none.y).all()


def test_classes_with_the_particles_of_another_are_unknown():
    stale = is_stale(np.array([10.0, 60.0, 30.0]), np.array([0.3, 0.4, 0.3]), 100.0)
    assert stale.tolist() == [True, False, False]
    rows = [row for row, _ in ROWS[:3]]
    found = labelled(dataclasses.replace(truth(rows), stale=stale))
    assert found.label.tolist() == [-1, 1, 1] and found.best_A == 12.0
    assert np.isnan(found.y).tolist() == np.isnan(found.w).tolist() == [True, False, False]
    # Only of gradient jobs before their end: elsewhere all particles have been seen.
    one = records.read(records.listing(KEPT)[0])
    one = dataclasses.replace(one, size=np.zeros(len(one)))
    for gradient, stop, unknown in ((True, 4, True), (True, 9, False), (False, 4, False)):
        told = json.loads(one.configuration)
        told |= {"gradient": gradient, "stop": stop, "iterations": 9}
        again = relabelled(dataclasses.replace(one, configuration=json.dumps(told)))
        assert (again.label == records.UNKNOWN_LABEL).all() == unknown


def test_a_job_without_a_target_is_worth_nothing():
    found = labelled(truth([({"O": 200}, np.inf, np.nan, 0.0), ({"N": 30}, np.inf, np.nan, 0.0)]))
    assert found.label.tolist() == [0, 0] and found.y.tolist() == [0.0, 0.0]
    assert found.job_score == 0.05 and np.isinf(found.best_A)


@pytest.mark.parametrize(
    ("curve", "resolution"),
    [
        ([1.0, 0.9, 0.9, 0.7, 0.3, 0.1, 0.0, 0.0, 0.0], 100 / 3.5),
        ([1.0, 0.2, 0.9, 0.9, 0.9, 0.5, 0.1, 0.0, 0.0], 100 / 5.0),  # the first shell may fail
        ([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 100 / 8.0),
        ([1.0, 0.1, 0.2, 0.1, 0.2, 0.1, 0.6, 0.0, 0.0], np.inf),
        ([1.0, 0.1, 0.2, 0.1, 0.2, 0.1, 0.3, 0.0, 0.0], np.inf),
    ],
)
def test_resolution_is_where_the_correlation_falls(curve, resolution):
    assert crossing(np.array(curve), 100.0)[0] == pytest.approx(resolution)


@pytest.mark.parametrize("psi", [0.0, 137.0, -60.0])
def test_a_class_is_matched_by_a_view_of_its_members(psi):
    random = np.random.default_rng(8)
    projector = Projector(catalogue.molecule("globular04"), BOX, PIXEL_A)
    turns = rotations(random, 6)
    # The average shows member 4 turned back by its psi and 3 px beside the middle, filtered.
    shown = rotated_in_plane(turns[4:5], np.array([-psi]))
    spectrum = projector.slices(shown, BOX) * shift_phases(BOX, np.array([[3.0, 0.0]]))
    image = image_of(spectrum, BOX)[0]
    image = image + 0.02 * image.std() * torch.from_numpy(random.standard_normal(image.shape))
    matcher = Matcher(projector, BOX, PIXEL_A, 140.0)
    found = matcher.match(image.numpy(), turns, np.full(6, psi))
    assert found.offset_px == pytest.approx(3.0, abs=0.6)
    assert found.resolution_A < 9.0
    wrong = matcher.match(image.numpy(), turns, np.full(6, psi + 90.0))
    assert wrong.resolution_A > 1.5 * found.resolution_A
    assert np.isinf(matcher.match(image.numpy(), turns[:0], np.zeros(0)).resolution_A)


def test_rare_views_are_those_that_few_good_particles_have():
    turns = np.tile(rotations(np.random.default_rng(3), 1), (100, 1, 1))
    turns[98:, 2] *= -1.0  # two seen from the other side
    good = np.ones(100, bool)
    good[99] = False
    assert np.flatnonzero(rare_views(turns, good)).tolist() == [98]


def tiny(number: int, **changes: object) -> Setting:
    """Return a job of a plan that is made within two seconds."""
    small = {
        "box_px": 32, "pixel_A": 5.0, "particles": 160, "n_classes": 3, "gradient": False,
        "iterations": 3, "stop": 3, "structure": "ring03", "family": "ring03", "part": "train",
        "diameter_A": 88.0, "mask": 1.1, "snr": 3.0, "psi_step_deg": 30.0, "offset_range_px": 2.0,
        "other": ("small01",), "shares": (0.7, 0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0),
    }  # fmt: skip
    return dataclasses.replace(plan.job_of(number), **(small | changes))


def test_jobs_are_made_once_until_stopped_and_are_the_same_again(tmp_path):
    jobs, told = [tiny(0), tiny(5)], []
    set_a, set_b = tmp_path / "a", tmp_path / "b"
    left = set_a / ".sim00000" / "run"  # by one that was killed
    left.mkdir(parents=True)
    assert make.make(set_a, jobs[:1], tell=told.append) == (1, 0)
    assert sorted(path.name for path in set_a.iterdir()) == [
        "plan.jsonl",
        "sim00000.npz",
        "sim00000e.npz",
        "split.txt",
    ]
    one = records.read(set_a / "sim00000.npz")
    assert one.totals.sum() == 160 and one.totals[PLACE["T"]] == 112
    assert one.counts.sum() <= 160 and len(one) >= 2
    assert np.isfinite(one.y).all() and one.features.vector().shape == (len(one), 24)
    assert json.loads(one.configuration)["structure"] == "ring03"
    assert (set_a / make.SPLIT).read_text() == plan.written_split()
    early = records.read(set_a / "sim00000e.npz")
    assert early.job == "sim00000e" and json.loads(early.configuration)["stop"] == 2
    assert not np.array_equal(early.features.images, one.features.images)
    # Nothing is made again, and a file ends the work.
    before = (set_a / "sim00000.npz").stat().st_mtime_ns
    (set_a / make.STOP).touch()
    assert make.make(set_a, jobs, tell=told.append) == (0, 0)
    assert (set_a / "sim00000.npz").stat().st_mtime_ns == before
    assert "stopped" in told[-1]
    assert len((set_a / make.PLAN).read_text().splitlines()) == 2
    make.make(set_b, jobs[:1], tell=told.append)
    assert (set_b / "sim00000.npz").read_bytes() == (set_a / "sim00000.npz").read_bytes()


def test_a_folder_of_another_plan_is_refused(tmp_path):
    (tmp_path / make.PLAN).write_text(tiny(0).text() + "\n")
    with pytest.raises(RankerError, match="another plan for sim00000"):
        make.make(tmp_path, [tiny(0, snr=1.0)], tell=print)


def test_a_job_that_fails_is_told_and_leaves_no_file(tmp_path):
    told: list[str] = []
    jobs = [tiny(0, n_classes=500), tiny(5, structure="nothing")]
    assert make.make(tmp_path, jobs, tell=told.append) == (0, 2)
    assert "sim00000" in told[-2] and "500 classes" in told[-2]
    assert "sim00005" in told[-1] and "KeyError" in told[-1]
    assert records.listing(tmp_path) == []


def test_the_command_tells_the_split(capsys):
    assert command.main(["split"]) == 0
    assert capsys.readouterr().out == plan.written_split()


SEVERAL = """
import sys
from pathlib import Path
from algorithms.ranker.trainingset.make import make
from algorithms.ranker.trainingset.settings import parsed
plan = [parsed(line) for line in Path(sys.argv[1]).read_text().splitlines()]
for workers in (1, 2):
    assert make(Path(sys.argv[1]).parent / str(workers), plan, workers) == (len(plan), 0)
"""


@pytest.mark.slow
def test_several_processes_make_the_same_files(tmp_path):
    given = tmp_path / "given.jsonl"
    given.write_text("".join(tiny(n).text() + "\n" for n in (0, 5)))
    # A process of its own, as the pool's helpers live as long as the one that began them.
    subprocess.run([sys.executable, "-c", SEVERAL, str(given)], check=True, timeout=600)
    paths = records.listing(tmp_path / "1")
    assert len(paths) == 4
    for path in paths:
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


@pytest.mark.slow
def test_good_and_bad_particles_come_apart_in_a_small_job(tmp_path):
    one = tiny(0, particles=500, n_classes=8, iterations=12, stop=12, psi_step_deg=15.0)
    make.make(tmp_path, [one], tell=print)
    found = records.read(tmp_path / "sim00000.npz")
    purity = found.counts[:, PLACE["T"]] / found.counts.sum(1)
    assert (found.y[purity < 0.3] == 0.0).all() and (purity < 0.3).any()
    assert found.y[purity > 0.8].max() > 0.15
