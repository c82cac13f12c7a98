"""Parts of the training set of the ranker: records, plan, molecules, projections, stacks."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from algorithms.ranker.features import features
from algorithms.ranker.trainingset import catalogue, dirt, kinds, optics, plan, records, stacks
from algorithms.ranker.trainingset.domains import rotations
from algorithms.ranker.trainingset.labels import CROWDED
from algorithms.ranker.trainingset.molecules import Molecule
from algorithms.ranker.trainingset.projecting import (
    Projector,
    image_of,
    rotated_in_plane,
    shift_phases,
)
from algorithms.ranker.trainingset.records import PARTS, TAGS, ClassRecords
from algorithms.ranker.trainingset.settings import Setting, parsed
from algorithms.ranker.types import RankerError
from tests.ranker_data import averages, class_set

RANDOM = np.random.default_rng(4)
CANVAS = 48


def record(n: int = 3) -> ClassRecords:
    found = features(class_set(averages(n, 48)), "coldstream")
    n = len(found)
    values = {name: np.linspace(0.1, 0.9, n) for name in ("size", "fraction", "y", "w", "offset")}
    return ClassRecords(
        job="a1", structure="s", family="f", part="train", source="simulated", seed=5,
        configuration='{"K": 3}', features=found, resolution_A=np.full(n, 9.0),
        label=np.arange(n), job_score=0.5, true_resolution_A=np.array([*[8.0] * (n - 1), np.inf]),
        neighbour=np.full(n, np.nan), counts=np.ones((n, 9)), rare=np.zeros(n),
        totals=np.ones(9), **values,
    )  # fmt: skip


def setting(**changes: object) -> Setting:
    """Return a job that is made within a second."""
    small = {
        "box_px": 32, "pixel_A": 4.0, "particles": 90, "structure": "ring03", "family": "ring03",
        "other": ("small01",), "diameter_A": 88.0, "mask": 1.1, "is_dense": False, "snr": 2.0,
        "shares": tuple([1.0] * 9), "wrong_ctf_A": 0.0, "phase_deg": 0.0,
    }  # fmt: skip
    return dataclasses.replace(plan.job_of(0), **(small | changes))


def test_record_is_read_as_it_was_written(tmp_path):
    one = record()
    path = tmp_path / "a1.npz"
    records.write(path, one)
    (tmp_path / ".a2.npz").write_bytes(b"half")
    again = records.read(path)
    assert records.listing(tmp_path) == [path]
    for field in dataclasses.fields(one):
        ours, theirs = getattr(one, field.name), getattr(again, field.name)
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        elif field.name != "features":
            assert ours == theirs
    np.testing.assert_array_equal(one.features.vector(), again.features.vector())
    np.testing.assert_array_equal(one.features.images, again.features.images)


def test_damaged_records_are_refused_by_name(tmp_path):
    path = tmp_path / "a1.npz"
    records.write(path, record())
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK" + bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(RankerError, match=r"a1\.npz"):
            records.read(path)


def test_records_that_do_not_fit_together_are_refused():
    one = record()
    with pytest.raises(RankerError, match="counts has shape"):
        dataclasses.replace(one, counts=np.ones((2, 9)))
    with pytest.raises(RankerError, match="part 'mine'"):
        dataclasses.replace(one, part="mine")


def test_families_are_in_one_part_as_it_was_written_down():
    assert plan.split_text() == plan.written_split()
    found = Counter(plan.split().values())
    total = sum(found.values())
    assert total >= 60 and len(catalogue.names()) > total
    assert found["train"] / total == pytest.approx(0.7, abs=0.02)
    assert found["test"] / total == pytest.approx(0.15, abs=0.02)
    kinds_of = {part: set() for part in found}
    for family, part in plan.split().items():
        kinds_of[part].add(family.rstrip("0123456789"))
    assert len(kinds_of["test"]) >= 8 and len(kinds_of["validation"]) >= 8


def test_plan_follows_from_its_seed_and_leaks_no_structure():
    jobs, parts = {n: plan.job_of(n) for n in (2, 5, 7, 10)}, plan.split()
    assert Counter(plan.part_of(n) for n in range(20)) == {
        "train": 12, "validation": 3, "test": 3, "second": 2,
    }  # fmt: skip
    for one in jobs.values():
        home = "test" if one.part == "second" else one.part
        assert one.part in PARTS and parts[one.family] == home
        assert one.is_second == (one.part == "second") == (not one.zero_mask)
        shown = [name for name in one.other if name not in catalogue.negatives()]
        assert all(parts[catalogue.names()[name]] == home for name in shown)
        assert sum(one.shares) == pytest.approx(1.0)
        assert parsed(one.text()) == one
    assert plan.job_of(7).text() == jobs[7].text() != plan.job_of(7, seed=1).text()


def test_no_filament_is_in_two_parts():
    rng = np.random.default_rng(2)
    shown = {part: {plan._filament(rng, part) for _ in range(40)} for part in PARTS[:4]}
    assert shown["test"] == shown["second"]
    assert sum(len(shown[part]) for part in PARTS[:3]) == len(catalogue.negatives())
    assert set().union(*shown.values()) == set(catalogue.negatives())


def test_the_second_simulator_mostly_uses_the_other_algorithm():
    share = {
        second: np.mean(
            [plan._classification(np.random.default_rng(n), second)["gradient"] for n in range(99)]
        )
        for second in (False, True)
    }
    assert share[False] > 0.7 and share[True] == pytest.approx(1.0 - share[False])


def test_the_second_simulator_has_ice_of_its_own(monkeypatch):
    monkeypatch.setattr(dirt, "_spots", None)  # none of the first is called
    monkeypatch.setattr(dirt, "_ring", None)
    monkeypatch.setattr(dirt, "draw_potential", None)
    for seed in range(8):
        image = dirt.ice(np.random.default_rng(seed), CANVAS, 20.0, second=True)
        assert image.shape == (CANVAS, CANVAS) and 5.0 <= np.abs(image).max() <= 50.0001
        again = dirt.ice(np.random.default_rng(seed), CANVAS, 20.0, second=True)
        np.testing.assert_array_equal(image, again)


@pytest.mark.parametrize("name", ["small03", "ring06", "dihedral03", "capsid02", "membrane03"])
def test_molecules_are_as_dense_as_protein_and_as_symmetric_as_told(name):
    from scipy.spatial import KDTree

    from algorithms.orientation import symmetry

    made = catalogue.molecule(name)
    protein = made.points_A[made.parts >= 0]
    near = KDTree(protein).query_ball_point(protein[::40], 6.0, return_length=True)
    # Two points for 136 A^3, a sphere of 905 A^3: 13 inside of protein, half on its surface.
    assert 6.0 < np.median(near) < 18.0
    operator = symmetry.operators(made.symmetry).numpy()[-1]
    tree = KDTree(made.points_A if made.shape != "membrane" else protein)
    assert np.quantile(tree.query(protein[::40] @ operator.T)[0], 0.9) < 1e-4


def test_projection_is_the_sum_along_the_beam():
    points = RANDOM.normal(0.0, 10.0, (60, 3))
    cloud = Molecule(
        name="cloud", family="cloud", shape="test", symmetry="C1", points_A=points,
        weights=np.ones(60), parts=np.zeros(60, np.int64),
    )  # fmt: skip
    projector = Projector(cloud, 40, 3.0)
    turn, shift = rotations(RANDOM, 1), np.array([[3.0, -5.0]])
    spectrum = projector.slices(turn, CANVAS) * shift_phases(CANVAS, shift)
    image = image_of(spectrum, CANVAS)[0].numpy()
    # The same by hand: each point blurred where it is seen, x the last axis.
    seen = points @ turn[0].T[:, :2] / 3.0 + shift + CANVAS // 2
    f = np.fft.fftfreq(CANVAS)
    q2 = (f[:, None] ** 2 + f[None] ** 2) / 9.0
    blur = np.exp(-15.0 * q2) - 0.6 * np.exp(-53.0 * q2)
    phases = np.exp(
        -2j * np.pi * (seen[:, 1, None, None] * f[:, None] + seen[:, 0, None, None] * f)
    )
    within = np.sqrt(q2) <= (CANVAS / 2 - 1) / (3.0 * CANVAS)
    by_hand = np.fft.ifft2(phases.sum(0) * blur * within).real
    assert np.corrcoef(image.ravel(), by_hand.ravel())[0, 1] > 0.99
    assert image.sum() == pytest.approx(by_hand.sum(), rel=3e-2)


def test_turning_in_the_plane_turns_the_image():
    projector = Projector(catalogue.molecule("small05"), 32, 3.0)
    turn = rotations(RANDOM, 1)
    image = image_of(projector.slices(turn, 33 + 1), 34)[0].numpy()[1:, 1:]
    other = image_of(projector.slices(rotated_in_plane(turn, np.array([90.0])), 34), 34)[0].numpy()
    # The slice at j has what was at A^T j: by 90 degrees, x takes the place of y.
    same = [np.corrcoef(np.rot90(image, k).ravel(), other[1:, 1:].ravel())[0, 1] for k in (1, 3)]
    assert same[0] > 0.99 > same[1]


def test_each_tag_shows_what_it_says():
    one = setting(particles=900)
    rng = np.random.default_rng(1)
    tags = kinds.tags_of(one, rng)
    assert np.array_equal(np.bincount(tags, minlength=9), [100] * 9)
    seen = kinds.seen(one, tags, rng)
    own = ~seen.is_neighbour
    count = {
        tag: np.bincount(seen.particle, minlength=900)[tags == i] for i, tag in enumerate(TAGS)
    }
    assert (count["T"] == 1).all() and (count["N"] == 0).all() and (count["I"] == 0).all()
    assert (count["B"] >= 2).all() and (count["A"] >= 3).all()
    length = np.linalg.norm(seen.shift_px, axis=1) / one.diameter_px
    whose = np.array(TAGS)[tags[seen.particle]]
    assert length[own & (whose == "T")].max() <= 0.05 + 1e-9
    assert 0.15 <= length[own & (whose == "C")].min() < length[own & (whose == "C")].max() <= 0.5
    assert (seen.molecule[own & (whose == "T")] == kinds.TARGET).all()
    assert (seen.molecule[whose == "P"] != kinds.TARGET).all()


def test_stack_is_normalised_bright_and_the_same_again():
    one = setting(shares=(1.0, *[0.0] * 8), snr=30.0, colour=0.0)
    made = stacks.simulated(one)
    axis = np.arange(32) - 16
    outside = axis[:, None] ** 2 + axis[None] ** 2 > (0.375 * 32) ** 2
    background = made.images.numpy()[:, outside]
    np.testing.assert_allclose(background.mean(1), 0.0, atol=1e-3)
    np.testing.assert_allclose(background.std(1), 1.0, atol=1e-2)
    # Noise-free projections at the true poses, with the CTF, are what the images show.
    slices = made.projector.slices(made.rotation, 32) * shift_phases(32, made.shift_px)
    ctf = optics.ctf_values(made.ctf, optics.half_plane(32), one.pixel_A)
    seen = image_of(slices * ctf, 32).numpy().reshape(len(made.tags), -1)
    likeness = [
        np.corrcoef(a, b.ravel())[0, 1] for a, b in zip(seen, made.images.numpy(), strict=True)
    ]
    assert np.median(likeness) > 0.8
    assert torch.equal(made.images, stacks.simulated(one).images)


def test_neighbours_share_of_the_signal_is_known():
    shares = dict.fromkeys(TAGS, 0.0) | {"T": 1.0, "B": 1.0}
    made = stacks.simulated(setting(shares=tuple(shares.values()), neighbour=0.6, box_px=40))
    beside = made.tags == TAGS.index("B")
    assert made.has_target.all() and 0 < beside.sum() < len(beside) // 2
    assert (made.neighbour[beside] >= CROWDED).all()
    # Where the neighbour hardly shows, the particle is a good one; most have none at all.
    assert (made.neighbour[~beside] < CROWDED).all() and (made.neighbour == 0.0).mean() >= 0.5
