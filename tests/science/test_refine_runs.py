"""Iterations and runs: cases 14, 16, 17, 20 and 22 of refinement.md section 10; bad images."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch

from algorithms.formats import mrc, star
from algorithms.refine import accuracy, files, iteration, schedule, splitting, start
from algorithms.refine.expectation import Work
from algorithms.refine.images import check_images
from algorithms.refine.run import Run, check, verify
from algorithms.refine.sampling import Sampling
from algorithms.refine.tables import tables
from algorithms.refine.types import DataSet, Model, Options, RefineError
from tests.refine_data import OPTICS, Kept, Truth, particle_set, particles
from tests.science.refine_quality import adjusted_rand
from tests.shared import shared

STEPS = Sampling(psi_step_deg=24.0, offset_range_A=8.0, offset_step_A=8.0)
ROUND_A = 100.0


def begun(n: int, k: int = 3, snr: float = 0.2, **changes: object) -> tuple[
    DataSet, Truth, Options, Model
]:  # fmt: skip
    """Return particles, and a model with their true references."""
    data, truth = particle_set(n, k=k, snr=snr)
    settings: dict[str, object] = {
        "n_classes": k, "iterations": 5, "particle_diameter_A": ROUND_A, "seed": 3,
    }  # fmt: skip
    options = Options(**(settings | changes))  # type: ignore[arg-type]
    model = start.start(data, options, STEPS, ["group"])
    model.references = truth.references.clone()
    return data, truth, options, model


# ---- case 16: classes that ran empty


def nearly_empty(iterations_done: int, **changes: object) -> tuple[DataSet, Options, Model]:
    """Return a VDAM run with two classes that are the same, and one that has next to nothing."""
    data, truth, options, model = begun(200, gradient=True, iterations=200, **changes)
    model.references[1] = truth.references[0]
    model.references[2] = torch.randn((32, 32), generator=torch.Generator().manual_seed(3)) * 1e-3
    model.fractions = torch.tensor([0.4995, 0.4995, 0.001], dtype=torch.float64)
    model.iteration = iterations_done
    return data, options, model


def alike(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])


@pytest.mark.parametrize(("number", "is_filled"), [(70, True), (30, False), (170, False)])
def test_an_empty_class_is_filled_in_the_middle_phase_only(number: int, is_filled: bool) -> None:
    data, options, model = nearly_empty(number - 1)
    before = model.references.clone()
    iteration.iterate(data, model, options, np.arange(100))
    same = max(alike(model.references[2], before[0]), alike(model.references[2], before[1]))
    assert (same > 0.8) == is_filled
    assert (float(model.fractions[2]) > 0.1) == is_filled


def test_splits_go_on_a_little_longer_than_copies() -> None:
    numbers = (60, 61, 159, 160, 179, 180)
    assert [schedule.splits(n, 200) for n in numbers] == [False, True, True, True, True, False]
    assert [schedule.replaces(n, 200) for n in numbers] == [False, True, True, False, False, False]


def test_two_kinds_in_one_class_are_split_into_the_empty_one() -> None:
    """Class 0 holds two kinds; the empty class becomes one of them, and class 0 the other."""
    data, truth, options, model = begun(
        240, k=3, snr=0.3, gradient=True, iterations=200, replacement="split"
    )
    mixed = truth.references[[0, 1]].mean(0)
    model.references = torch.stack([mixed, truth.references[2], torch.zeros_like(mixed)])
    model.fractions = torch.tensor([0.665, 0.334, 0.001], dtype=torch.float64)
    for number in range(61, 75):
        model.iteration = number - 1
        iteration.iterate(data, model, options, np.arange(240))
    assert (model.fractions > 0.2).all()
    assert adjusted_rand(data.particles.classes, truth.classes) > 0.9
    again = deepcopy(model.fractions)
    assert splitting.chosen(again, 5) == []


def test_residuals_are_parted_where_they_vary_most() -> None:
    random = torch.Generator().manual_seed(1)
    kind = torch.tensor([1.0, -1.0]).repeat(50)
    rest = torch.randn((100, 40), generator=random, dtype=torch.complex128)
    rest += kind[:, None] * torch.randn((1, 40), generator=random, dtype=torch.complex128)
    sides = splitting.direction(rest)
    assert abs(float((sides * kind).mean())) > 0.9 and float(sides.sum()) == 0.0


def test_the_emptiest_take_from_the_largest() -> None:
    fractions = torch.tensor([0.4, 0.001, 0.3, 0.002, 0.297, 0.0], dtype=torch.float64)
    assert splitting.chosen(fractions, 9) == [(5, 0), (1, 2), (3, 4)]
    assert splitting.chosen(fractions, 1) == [(5, 0)]
    assert splitting.chosen(torch.full((6,), 1 / 6).double(), 9) == []


# ---- case 17: accuracies


def errors(model: Model, data: DataSet, options: Options) -> Model:
    work = Work(data, model, options, tables(model, options))
    accuracy.accuracies(work, np.random.default_rng(1))
    return model


def test_noise_makes_poses_less_certain_and_a_disc_has_no_rotation() -> None:
    data, _, options, model = begun(40, snr=0.5)
    quiet = errors(deepcopy(model), data, options)
    louder = deepcopy(model)
    louder.noise *= 4.0
    loud = errors(louder, data, options)
    assert (loud.accuracy_deg > quiet.accuracy_deg).all()
    assert (loud.accuracy_A > quiet.accuracy_A).all()
    axis = torch.arange(32) - 16.0
    square = axis[None] ** 2 + axis[:, None] ** 2
    model.references = 5.0 * torch.exp(-square / 18.0).repeat(3, 1, 1)
    data.particles.defocus_v_A[:] = data.particles.defocus_u_A  # nothing else has a direction
    found = errors(model, data, options)
    assert (found.accuracy_deg >= 30.0).all() and (found.accuracy_A < 40.0).all()


# ---- case 20: files


def written_set(place: Path, n: int = 90) -> Path:
    """Write particles of three classes; return their table."""
    data, _ = particle_set(n, snr=0.2)
    mrc.write(place / "p.mrcs", data.images.read(np.arange(n)).numpy(), 4.0, is_stack=True)
    rows = data.particles
    columns = {
        "rlnImageName": [f"{i + 1:06d}@p.mrcs" for i in range(n)],
        "rlnMicrographName": [f"mic{i % 3}.mrc" for i in range(n)], "rlnOpticsGroup": [1] * n,
        "rlnDefocusU": rows.defocus_u_A, "rlnDefocusV": rows.defocus_v_A,
        "rlnDefocusAngle": rows.defocus_angle_deg,
    }  # fmt: skip
    optics = {
        "rlnOpticsGroupName": ["opticsGroup1"], "rlnOpticsGroup": [1], "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1],
        "rlnImagePixelSize": [4.0], "rlnImageSize": [32], "rlnImageDimensionality": [2],
    }  # fmt: skip
    tables_ = {"optics": star.Table.of(optics), "particles": star.Table.of(columns)}
    star.save(place / "p.star", tables_, durable=False)
    return place / "p.star"


def a_run(table: Path, out: Path, **changes: object) -> Run:
    out.mkdir()
    settings: dict[str, object] = {
        "n_classes": 3, "iterations": 4, "particle_diameter_A": ROUND_A, "seed": 3,
    }  # fmt: skip
    options = Options(**(settings | changes))  # type: ignore[arg-type]
    return Run(table, out / "run", "run", table.parent, options, STEPS)


def test_files_hold_all_that_the_next_iteration_needs(tmp_path: Path) -> None:
    """Case 20: read back by ourselves and by another reader, the next iteration is the same."""
    table = written_set(tmp_path)
    made = a_run(table, tmp_path / "a", gradient=True, iterations=20)
    for _ in range(10):
        made.step()
    root = tmp_path / "a" / "run_it010"
    data = files.read_data(root.with_name("run_it010_data.star"), tmp_path)
    model = files.read_model(root)
    ours = iteration_after(made.data, made.model, made.options)
    theirs = iteration_after(data, model, made.options)
    spread = float(ours.references.std())
    assert float((ours.references - theirs.references).abs().max()) < 1e-3 * spread
    assert torch.allclose(ours.noise, theirs.noise, rtol=1e-6)
    assert torch.allclose(ours.fractions, theirs.fractions, atol=1e-6)
    assert (data.particles.classes == made.data.particles.classes).mean() > 0.98
    read = starfile.read(root.with_name("run_it010_model.star"))
    assert float(read["model_general"]["rlnNrClasses"]) == 3
    found = read["model_classes"]["rlnClassDistribution"].to_numpy()
    assert found == pytest.approx(files.read_model(root).fractions.numpy(), abs=1e-8)
    rows = starfile.read(root.with_name("run_it010_data.star"))["particles"]
    assert rows["rlnAnglePsi"].to_numpy() == pytest.approx(
        star.load(root.with_name("run_it010_data.star"))["particles"].floats("rlnAnglePsi")
    )
    for part in ("optimiser", "sampling"):
        assert len(starfile.read(root.with_name(f"run_it010_{part}.star"))) > 5


def iteration_after(data: DataSet, model: Model, options: Options) -> Model:
    model = deepcopy(model)
    iteration.iterate(deepcopy(data), model, options, np.arange(0, len(data), 2))
    return model


# ---- case 22: the same again


def test_a_run_is_the_same_each_time_and_hardly_depends_on_the_batches(tmp_path: Path) -> None:
    table = written_set(tmp_path)
    first, second, other = (
        a_run(table, tmp_path / name, batch=batch)
        for name, batch in (("a", 64), ("b", 64), ("c", 17))
    )
    for made in (first, second, other):
        made.run()
    for path in sorted((tmp_path / "a").glob("run_it*")):
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes(), path.name
    apart = (first.model.references - other.model.references).std()
    assert float(apart / first.model.references.std()) < 1e-3
    assert (first.data.particles.classes == other.data.particles.classes).mean() > 0.97


def test_a_run_that_splits_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    table = written_set(tmp_path)
    changes = {"gradient": True, "iterations": 12, "replacement": "split", "n_classes": 8}
    whole = a_run(table, tmp_path / "a", **changes)
    whole.run()
    (tmp_path / "b").mkdir()
    for _ in range(12):  # each iteration by a run that knows nothing but the files
        part = Run(table, tmp_path / "b" / "run", "run", tmp_path, whole.options, STEPS)
        part.step()
    assert part.finished and torch.equal(part.model.references, whole.model.references)
    assert torch.equal(part.model.fractions, whole.model.fractions)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_less_precise_first_pass_ends_in_the_same_classes(precision: str) -> None:
    """Case 21; what the processor does not have is done in single precision."""
    labels = []
    for one in ("highest", precision):
        data, _, options, model = begun(200, snr=0.1, coarse_precision=one)
        for _ in range(3):
            iteration.iterate(data, model, options, np.arange(200))
        labels.append(data.particles.classes)
    assert (labels[0] == labels[1]).mean() > 0.99


def test_splits_follow_from_the_seed() -> None:
    ends = []
    for _ in range(2):
        data, options, model = nearly_empty(69, replacement="split")
        iteration.iterate(data, model, options, np.arange(200))
        ends.append(model.references)
    assert torch.equal(*ends)


# ---- what is wrong with the images or the table


def with_image(data: DataSet, number: int, image: torch.Tensor) -> DataSet:
    images = data.images.read(np.arange(len(data)))
    images[number] = image
    return replace(data, images=Kept(images))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("gradient", [True, False])
def test_a_value_that_is_no_number_is_refused(value: float, gradient: bool) -> None:
    data, _, options, model = begun(30, gradient=gradient)
    image = data.images.read(np.array([17]))[0]
    image[3, 4] = value
    with pytest.raises(RefineError, match=r"particle 18 .* not finite"):
        iteration.iterate(with_image(data, 17, image), model, options, np.arange(30))


@pytest.mark.parametrize(("value", "message"), [(None, "constant"), (1e4, "outweighs")])
def test_constant_images_and_hot_pixels_are_refused(value: float | None, message: str) -> None:
    """One of them among hundreds would spoil the noise and so the classes of all others."""
    data, _, options, model = begun(30)
    image = data.images.read(np.array([4]))[0] if value else torch.full((32, 32), 7.0)
    if value:
        image[16, 20] = value
    spoilt = with_image(data, 4, image)
    with pytest.raises(RefineError, match=f"particle 5 .*{message}"):
        start.start(spoilt, options, STEPS, ["group"])
    with pytest.raises(RefineError, match=f"particle 5 .*{message}"):
        iteration.iterate(spoilt, model, options, np.arange(30))


@pytest.mark.parametrize(
    ("stack", "pixel_A"),
    [("empiar_10076_7.mrc", 1.31), ("relion31.mrcs", 1.0), ("sample.mrcs", 1.0)],
)
def test_real_particles_are_classified(stack: str, pixel_A: float) -> None:
    images = mrc.read(shared(f"data/particles/{stack}")).astype(np.float32)
    n, box = len(images), images.shape[-1]
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(images)[:, None], 4)[:, 0]
    data = DataSet(
        particles=particles(n), images=Kept(small), optics=[OPTICS], pixel_A=4.0 * pixel_A
    )
    check_images(torch.from_numpy(images), np.arange(n))
    options = Options(n_classes=2, iterations=3, particle_diameter_A=0.8 * box * pixel_A, ctf=False)
    check(data, options)
    steps = Sampling(psi_step_deg=24.0, offset_range_A=8.0 * pixel_A, offset_step_A=8.0 * pixel_A)
    model = start.start(data, options, steps, ["group"])
    for _ in range(3):
        verify(model, iteration.iterate(data, model, options, np.arange(n)), n)
    assert set(data.particles.classes) <= {0, 1}


def test_tables_that_cannot_be_classified_are_refused(tmp_path: Path) -> None:
    data, _, options, _ = begun(30)
    with pytest.raises(RefineError, match="30 particles cannot make 31 classes"):
        check(data, replace(options, n_classes=31))
    data.particles.defocus_u_A[11] = 0.0
    with pytest.raises(RefineError, match=r"particle 12 .* no defocus"):
        check(data, options)
    check(data, replace(options, ctf=False))
    table = written_set(tmp_path, 30)
    blocks = star.load(table)
    narrow = np.zeros((3, 24, 24), np.float32)
    mrc.write(tmp_path / "n.mrcs", narrow, 4.0, is_stack=True)
    for name, message in (
        ("000001@nothing.mrcs", "nothing.mrcs"),
        ("000001@n.mrcs", "images of 24 x 24 px, not 32 x 32"),
        ("000031@p.mrcs", "particle 30 is image 31 of p.mrcs, which has 30"),
        ("p.mrcs", "is not NUMBER@STACK"),
    ):
        columns = dict(blocks["particles"].columns)
        columns["rlnImageName"] = [*columns["rlnImageName"][:-1], name]
        star.save(tmp_path / "q.star", {**blocks, "particles": star.Table(columns)}, durable=False)
        with pytest.raises(RefineError, match=message):
            start.start(files.read_data(tmp_path / "q.star", tmp_path), options, STEPS, ["group"])


def test_what_must_hold_is_checked_after_each_iteration() -> None:
    data, _, options, model = begun(30)
    sums = iteration.iterate(data, model, options, np.arange(30))
    verify(model, sums, 30)
    for name, value, message in (
        ("fractions", torch.tensor([0.5, 0.5, 0.5]), "do not sum to 1"),
        ("noise", model.noise * torch.nan, "noise are not finite"),
        ("references", model.references * torch.inf, "references are not finite"),
    ):
        with pytest.raises(RefineError, match=message):
            verify(replace(model, **{name: value}), sums, 30)
    with pytest.raises(RefineError, match="a particle has no class"):
        verify(model, sums, 31)


# ---- case 14


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_em_and_vdam_end_in_the_same_classes() -> None:
    """Five classes, 5,000 particles, the same first references: 25 and 200 iterations."""
    n, k = 5000, 5
    sampling = Sampling(psi_step_deg=12.0, offset_range_A=12.0, offset_step_A=8.0)
    ends = []
    for gradient, iterations in ((False, 25), (True, 200)):
        data, truth = particle_set(n, k=k, snr=0.5)
        options = Options(
            n_classes=k, iterations=iterations, particle_diameter_A=ROUND_A, gradient=gradient,
            seed=3,
        )  # fmt: skip
        model = start.start(data, options, sampling, ["group"])
        random = torch.Generator().manual_seed(2)
        noise = torch.randn(truth.references.shape, generator=random)
        blurred = start.low_passed(
            truth.references + 0.2 * noise * truth.references.std(), 4.0, 40.0
        )
        model.references = blurred.float()
        for number in range(1, iterations + 1):
            draws = np.random.default_rng((3, number))
            model.sampling = model.sampling.perturbed(draws)
            size = schedule.batch_size(number, iterations, n, k) if gradient else n
            subset = np.sort(draws.permutation(n)[:size])
            verify(model, iteration.iterate(data, model, options, subset), size)
        assert adjusted_rand(data.particles.classes, truth.classes) > 0.9
        ends.append(model.references)
    table = np.array([[alike_when_turned(one, other) for other in ends[1]] for one in ends[0]])
    assert (table.max(1) > 0.95).all() and len(set(table.argmax(1))) == k


def alike_when_turned(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest correlation of two averages, turned and moved by quarters of a px."""
    angles = torch.arange(0.0, 360.0, 2.0, dtype=torch.float64).deg2rad()
    turned = splitting.turned_by(a.double().expand(len(angles), -1, -1), angles)
    spectra = [
        torch.fft.fft2(one - one.mean((-2, -1), keepdim=True)) for one in (turned, b.double())
    ]
    product = torch.fft.fftshift(spectra[0].conj() * spectra[1], dim=(-2, -1))
    fine = torch.nn.functional.pad(product, (48, 48, 48, 48))
    peak = torch.fft.ifft2(torch.fft.ifftshift(fine, dim=(-2, -1))).real.amax((-2, -1)) * 16.0
    norms = [(one - one.mean()).pow(2).sum().sqrt() for one in (a.double(), b.double())]
    return float(peak.max() / (norms[0] * norms[1]))
