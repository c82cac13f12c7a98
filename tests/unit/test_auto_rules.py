"""Auto-refine's rules decide as RELION 5.0.1 did, and at their limits as they say."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.formats import star
from algorithms.orientation import euler, symmetry
from algorithms.refine.auto import rules
from algorithms.refine.auto.changes import changes
from algorithms.refine.auto.rules import Changes, Rules, State, Steps
from tests.shared import shared

RULES = Rules(particle_diameter_A=300.0)
STEPS = Steps(order=2, offset_range_A=60.0, offset_step_A=24.0)


# ---- replay of the reference run


@dataclass
class Told:
    """What RELION's files say of an iteration."""

    optimiser: star.Table
    steps: Steps
    model: star.Table
    ssnr: torch.Tensor
    fsc: torch.Tensor
    data: star.Table

    def number(self, label: str) -> float:
        return float(self.optimiser.floats(label)[0])


def told(folder: Path, name: str, half: str) -> Told:
    general = star.load(folder / f"{name}_sampling.star")["sampling_general"]
    model = star.load(folder / f"{name}{half}_model.star")
    spectra = model["model_class_1"]
    return Told(
        star.load(folder / f"{name}_optimiser.star")["optimiser_general"],
        Steps(
            order=general.ints("rlnHealpixOrder")[0],
            offset_range_A=general.floats("rlnOffsetRange")[0],
            offset_step_A=general.floats("rlnOffsetStep")[0],
        ),
        model["model_general"],
        torch.as_tensor(spectra.floats("rlnSsnrMap")),
        torch.as_tensor(spectra.floats("rlnGoldStandardFsc")),
        star.load(folder / f"{name}_data.star")["particles"],
    )


def poses(table: star.Table) -> tuple[np.ndarray, np.ndarray]:
    def columns(*labels: str) -> np.ndarray:
        n = len(table)
        return np.stack(
            [table.floats(one) if one in table.columns else np.zeros(n) for one in labels], 1
        )

    return (
        columns("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
        columns("rlnOriginXAngst", "rlnOriginYAngst"),
    )


def run_files() -> list[Told]:
    folder = shared("data/refinement/refine3d")
    out = [told(folder, f"run_it{number:03d}", "_half1") for number in range(5)]
    return [*out, told(folder, "run", "")]


def test_every_decision_of_the_reference_run_is_made() -> None:
    files = run_files()
    box, pixel = 32, 12.0
    edge = box * pixel
    state, steps, shell, pmax = State(), rules.started(files[0].steps, RULES), 6, 0.0
    state = rules.resolved(state, shell / edge)
    for number in range(1, 6):
        then, now = files[number - 1], files[number]
        state = replace(state, converged=rules.has_converged(state, RULES))
        assert state.converged == (number == 5) == (now.number("rlnHasConverged") > 0)
        size = rules.window(state, shell, box, pmax)
        assert size == now.model.ints("rlnCurrentImageSize")[0]
        if number > 1:
            accuracy = (
                now.number("rlnOverallAccuracyRotations"),
                now.number("rlnOverallAccuracyTranslationsAngst"),
            )
            state, steps = rules.refined(state, steps, *accuracy, RULES)
        assert (steps.order, steps.offset_range_A, steps.offset_step_A) == (
            now.steps.order,
            now.steps.offset_range_A,
            now.steps.offset_step_A,
        )
        (angles, offsets), (angles_now, offsets_now) = poses(then.data), poses(now.data)
        made = changes(angles, angles_now, offsets, offsets_now)
        if number == 1:  # no particle has a class before
            made = replace(made, reclassed=1.0)
        state = rules.moved(state, made, steps, RULES)
        turned = now.number("rlnChangesOptimalOrientations")
        assert made.turned_deg == pytest.approx(turned, rel=1e-4)
        shifted = now.number("rlnChangesOptimalOffsets")
        assert made.shifted_A == pytest.approx(shifted, rel=1e-4)
        least = now.number("rlnSmallestChangesOrientations")
        assert state.least.turned_deg == pytest.approx(least, rel=1e-4)
        least = now.number("rlnSmallestChangesOffsets")
        assert state.least.shifted_A == pytest.approx(least, rel=1e-4)
        if number > 1:
            shell = rules.resolution_shell(now.ssnr, jumps=not state.converged)
        assert shell == round(edge / now.model.floats("rlnCurrentResolution")[0])
        state = rules.judged(state, now.fsc, size)
        state = rules.resolved(state, shell / edge)
        assert state.increment == now.number("rlnIncrementImageSize")
        assert state.high_fsc == (now.number("rlnHasHighFscAtResolLimit") > 0)
        assert state.no_gain == now.number("rlnNumberOfIterWithoutResolutionGain")
        assert state.no_change == now.number("rlnNumberOfIterWithoutChangingAssignments")
        assert state.best == pytest.approx(now.number("rlnBestResolutionThusFar"), abs=1e-6)
        pmax = now.model.floats("rlnAveragePmax")[0]
    assert state.fine_enough


# ---- steps


STALLED = State(resolution=0.02, best=0.02, no_gain=1, no_change=1)


def test_steps_become_finer_when_nothing_gets_better() -> None:
    stalled = replace(STALLED, changes=Changes(turned_deg=3.0, shifted_A=1.0, reclassed=0.0))
    state, steps = rules.refined(stalled, STEPS, 5.0, 1.0, RULES)
    assert steps.order == 3 and steps.sigma_deg == 0.0
    # 0.75 of the accuracy, twice for the coarse pass; range: five times the changes
    assert steps.offset_step_A == pytest.approx(1.5)
    assert steps.offset_range_A == pytest.approx(5.0)
    assert (state.no_gain, state.no_change, state.least) == (0, 0, Changes())
    again, same = rules.refined(state, steps, 5.0, 1.0, RULES)
    assert again == state and same == steps


@pytest.mark.parametrize("field", ["no_gain", "no_change"])
def test_steps_stay_while_something_improves(field: str) -> None:
    state = replace(STALLED, **{field: 0})
    assert rules.refined(state, STEPS, 1.0, 1.0, RULES) == (state, STEPS)


def test_steps_finer_than_the_accuracy_are_not_made() -> None:
    state, steps = rules.refined(STALLED, STEPS, 10.1, 3.0, RULES)  # 7.5 < 0.75 * 10.1
    assert state.fine_enough and steps == STEPS
    state, steps = rules.refined(STALLED, STEPS, 9.9, 3.0, RULES)
    assert not state.fine_enough and steps.order == 3


@pytest.mark.parametrize(
    ("accuracy", "shifted", "wanted"),
    [
        (1.0, 0.1, (1.5, 2.25)),  # never less than 1.5 steps
        (1.0, 2.0, (1.5, 5.0)),  # halved: more than four steps
        (1.0, 9.0, (5.625, 22.5)),  # more than four steps even so: coarser ones
        (90.0, 2.0, (3.0, 10.0)),  # 1.5 A in the fine pass at most
        (90.0, 40.0, (9.75, 39.0)),  # 1.3 times the old range at most
    ],
)
def test_range_and_step_of_shifts(accuracy: float, shifted: float, wanted: tuple) -> None:
    state = replace(STALLED, changes=Changes(shifted_A=shifted))
    _, steps = rules.refined(state, STEPS, 1.0, accuracy, RULES)
    assert (steps.offset_step_A, steps.offset_range_A) == pytest.approx(wanted)


def test_shifts_never_become_coarser() -> None:
    few = replace(STEPS, offset_step_A=1.0, offset_range_A=3.0)
    _, steps = rules.refined(STALLED, few, 1.0, 90.0, RULES)
    assert (steps.offset_step_A, steps.offset_range_A) == (1.0, 3.0)


def test_searches_are_local_from_the_fourth_order_on() -> None:
    at = replace(STEPS, order=3)
    _, steps = rules.refined(STALLED, at, 0.5, 1.0, RULES)
    assert steps.order == 4 and steps.sigma_deg == pytest.approx(2 * 1.875)
    assert rules.started(at, RULES).sigma_deg == 0.0
    assert rules.started(replace(at, order=4), RULES).sigma_deg == pytest.approx(3.75)


def test_resolution_may_ask_for_finer_angles() -> None:
    gaining = replace(STALLED, no_gain=0, resolution=1 / 10.0)  # 95 steps: 3.8 degrees
    faster = replace(RULES, ignore_angles=True, resol_angles=True)
    assert rules.refined(gaining, STEPS, 1.0, 1.0, RULES)[1].order == 2
    assert rules.refined(gaining, STEPS, 1.0, 1.0, faster)[1].order == 3
    # but it does not lead to local searches
    assert rules.refined(gaining, replace(STEPS, order=3), 0.1, 1.0, faster)[1].order == 3


def test_convergence_needs_all_three() -> None:
    done = replace(STALLED, fine_enough=True)
    assert rules.has_converged(done, RULES)
    for field, value in (("fine_enough", False), ("no_gain", 0), ("no_change", 0)):
        assert not rules.has_converged(replace(done, **{field: value}), RULES)
    turning = replace(done, no_change=0)
    assert rules.has_converged(turning, replace(RULES, ignore_angles=True))


def test_finer_steps_have_to_prove_fine_enough_anew() -> None:
    before = replace(STALLED, fine_enough=True)
    state, steps = rules.refined(before, STEPS, 5.0, 1.0, RULES)
    assert steps.order == 3 and not state.fine_enough
    last = replace(before, converged=True)
    assert rules.refined(last, STEPS, 5.0, 1.0, RULES) == (last, STEPS)


def test_small_changes_are_none() -> None:
    before = State(least=Changes(turned_deg=1.0, shifted_A=1.0, reclassed=0.0))
    # Both smaller than before, and below 0.4 of a fine step of 7.5 degrees and 12 A.
    small = Changes(turned_deg=0.5, shifted_A=0.5, reclassed=0.0)
    assert rules.moved(before, small, STEPS, RULES).no_change == 1
    far = State(least=Changes(turned_deg=10.0, shifted_A=10.0, reclassed=0.0))
    for name, value in (("turned_deg", 3.1), ("shifted_A", 4.9)):
        still = replace(small, **{name: value})
        assert rules.moved(far, still, STEPS, RULES).no_change == 0


# ---- resolution and window


def test_resolution_looks_beyond_a_gap_of_more_than_three_shells() -> None:
    ssnr = torch.tensor([9.0] * 8 + [0.5] * 12)
    assert rules.resolution_shell(ssnr) == 7
    ssnr[10] = 1.5
    assert rules.resolution_shell(ssnr) == 7
    ssnr[11] = 1.5
    assert rules.resolution_shell(ssnr) == 11
    assert rules.resolution_shell(ssnr, jumps=False) == 7
    assert rules.resolution_shell(torch.zeros(20)) == 5
    assert rules.resolution_shell(torch.full((20,), 2.0)) == 19


def test_the_window_grows_with_what_the_halves_say() -> None:
    fsc = torch.linspace(1.0, 0.0, 65)
    state = rules.judged(State(), fsc, 100)
    assert state.high_fsc  # 0.234 at shell 49
    assert state.increment == 55 - 33 + 5
    assert rules.window(state, 10, 128, 0.05) == 2 * (10 + 27)
    assert rules.window(state, 10, 128, 0.2) == 2 * (10 + 16)
    assert rules.window(replace(state, converged=True), 10, 128, 0.2) == 128
    assert not rules.judged(State(), fsc, 120).high_fsc
    assert rules.judged(state, torch.zeros(65), 100).high_fsc  # stays: quirk 14


def test_symmetry_mates_are_no_change() -> None:
    before = np.array([[10.0, 40.0, 70.0], [100.0, 80.0, -20.0]])
    group = symmetry.operators("C4")
    mates = euler.angles(euler.matrices(torch.as_tensor(before)) @ group[1]).numpy()
    zeros = np.zeros((2, 2))
    moved = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert changes(before, mates, zeros, zeros, group).turned_deg == pytest.approx(0.0, abs=1e-4)
    assert changes(before, mates, zeros, zeros).turned_deg > 10.0
    assert changes(before, before, zeros, moved).shifted_A == pytest.approx(2.5)
