"""RELION's file set of one iteration: writing.

Every file is written under another name and renamed; the optimiser's comes last, so an iteration
whose optimiser file is there is complete.

Source: refinement.md section 8.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from algorithms.formats import mrc, star
from algorithms.formats.atomic import atomic_write
from algorithms.formats.star import Table
from algorithms.refine import schedule
from algorithms.refine.space import written as space
from algorithms.refine.space.sampling import Sampling3D
from algorithms.refine.types import DataSet, Model, Options, Particles

# Labels of the particles' table that an iteration sets, and how they are printed.
_SET = {
    "rlnGroupNumber": ("%d", lambda p: p.group + 1),
    "rlnAngleRot": ("%.6f", lambda p: p.rot_deg),
    "rlnAngleTilt": ("%.6f", lambda p: p.tilt_deg),
    "rlnAnglePsi": ("%.6f", lambda p: p.psi_deg),
    "rlnOriginXAngst": ("%.6f", lambda p: p.offset_A[:, 0]),
    "rlnOriginYAngst": ("%.6f", lambda p: p.offset_A[:, 1]),
    "rlnClassNumber": ("%d", lambda p: p.classes + 1),
    "rlnNormCorrection": ("%.9f", lambda p: p.norm),
    "rlnLogLikeliContribution": ("%.6e", lambda p: p.log_likelihood),
    "rlnMaxValueProbDistribution": ("%.6f", lambda p: p.pmax),
    "rlnNrOfSignificantSamples": ("%d", lambda p: p.significant),
}


def write_iteration(
    root: Path, name: str, blocks: dict[str, Table], data: DataSet, model: Model, options: Options
) -> None:
    """Write an iteration.

    Parameters
    ----------
    root
        `.../run_itNNN`.
    name
        The same as the project names it, `Class2D/job008/run_itNNN`.
    blocks
        The particles' file as it was read: all of its columns are kept.
    data, model, options
        What is known, and how it was made.
    """
    write_references(root, model)
    if model.moments is not None and model.dim == 2:
        first, second = model.moments.first, model.moments.second
        flat = first.reshape(-1, first.shape[-1])
        _write_moments(root.with_name(f"{root.name}_1moment.mrcs"), flat, model)
        _write_moments(root.with_name(f"{root.name}_2moment.mrcs"), second.to(flat.dtype), model)
    elif model.moments is not None:
        space.write_moments(root, model)
    _save(root, "data", data_blocks(blocks, data.particles))
    _save(root, "model", model_blocks(name, model, data))
    _save(root, "sampling", sampling_blocks(model))
    _save(root, "optimiser", {"optimiser_general": as_list(optimiser(name, model, options))})


def write_references(root: Path, model: Model) -> None:
    """Write the references: a stack, or a file for each volume."""
    if model.dim == 3:
        space.write_maps(root, model)
    else:
        write_stack(root.with_name(f"{root.name}_classes.mrcs"), model.references, model.pixel_A)


def write_stack(path: Path, images: Tensor, pixel_A: float) -> None:
    """Write images `[K, N, N]` as a float32 stack."""
    values = images.float().cpu().numpy()
    atomic_write(path, mrc.encode(values, pixel_A, is_stack=True))


def data_blocks(blocks: dict[str, Table], particles: Particles) -> dict[str, Table]:
    """Return a particles' file with the columns that an iteration sets."""
    columns = dict(blocks["particles"].columns)
    for label, (form, value) in _SET.items():
        columns[label] = [form % one for one in value(particles)]
    return {**blocks, "particles": Table(columns)}


def model_blocks(name: str, model: Model, data: DataSet) -> dict[str, Table]:
    """Return the blocks of `_model.star`."""
    out = {
        "model_general": as_list(_general(model)),
        "model_classes": _classes(name, model),
    }
    shells = np.arange(model.box // 2 + 1)
    frequency = shells / (model.box * model.pixel_A)
    for k in range(model.n_classes):
        out[f"model_class_{k + 1}"] = _loop(
            rlnSpectralIndex=shells,
            rlnResolution=frequency,
            rlnAngstromResolution=1.0 / np.maximum(frequency, 1.0 / 999.0),
            rlnSsnrMap=model.ssnr[k],
            rlnGoldStandardFsc=np.zeros(len(shells)),
            rlnFourierCompleteness=model.coverage[k],
            rlnReferenceSigma2=model.sigma2[k],
            rlnReferenceTau2=model.tau2[k],
            rlnSpectralOrientabilityContribution=model.orientability[k],
        )
    members = np.bincount(data.particles.group, minlength=len(model.scales))
    out["model_groups"] = _loop(
        rlnGroupNumber=np.arange(1, len(model.scales) + 1),
        rlnGroupName=model.group_names,
        rlnGroupNrParticles=members,
        rlnGroupScaleCorrection=model.scales,
    )
    for group, noise in enumerate(model.noise):
        known = (noise > 0.0).numpy()
        out[f"model_optics_group_{group + 1}"] = _loop(
            rlnSpectralIndex=shells[known],
            rlnResolution=frequency[known],
            rlnSigma2Noise=noise.numpy()[known],
        )
    for k, shares in enumerate(space.direction_shares(model) if model.dim == 3 else []):
        out[f"model_pdf_orient_class_{k + 1}"] = _loop(rlnOrientationDistribution=shares)
    return out


def estimated_resolution_A(model: Model) -> np.ndarray:
    """Return the resolution of each class, A: the last shell before the prior outweighs it."""
    out = []
    for row in model.ssnr:
        below = (row < 1.0).nonzero()
        shell = max(0, int(below[0, 0]) - 1) if len(below) else len(row) - 1
        out.append(model.box * model.pixel_A / shell if shell > 0 else 999.0)
    return np.array(out)


def _general(model: Model) -> dict[str, object]:
    sigma = float(getattr(model.sampling, "sigma_deg", 0.0))
    return {
        "rlnReferenceDimensionality": model.dim,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": model.box,
        "rlnCurrentResolution": model.box * model.pixel_A / model.resolution_shell,
        "rlnCurrentImageSize": model.current_size,
        "rlnPaddingFactor": float(model.pad),
        "rlnIsHelix": 0,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": model.pixel_A,
        "rlnNrClasses": model.n_classes,
        "rlnNrBodies": 1,
        "rlnNrGroups": len(model.scales),
        "rlnNrOpticsGroups": len(model.noise),
        "rlnTau2FudgeFactor": model.tau2_fudge,
        "rlnNormCorrectionAverage": model.mean_norm,
        "rlnSigmaOffsetsAngst": model.sigma_offset_A,
        "rlnOrientationalPriorMode": int(sigma > 0.0),
        "rlnSigmaPriorRotAngle": sigma,
        "rlnSigmaPriorTiltAngle": sigma,
        "rlnSigmaPriorPsiAngle": sigma,
        "rlnLogLikelihood": model.log_likelihood,
        "rlnAveragePmax": model.mean_pmax,
    }


def _classes(name: str, model: Model) -> Table:
    numbers = range(1, model.n_classes + 1)
    moments: dict[str, object] = {}
    is_space, k = model.dim == 3, model.n_classes
    if model.moments is not None:
        for part, label in ((1, "rlnGradMoment1"), (2, "rlnGradMoment2")):
            stack = [f"{n:08d}@{name}_{part}moment.mrcs" for n in numbers]
            moments[label] = space.moment_names(name, part, k) if is_space else stack
    prior = {} if is_space else {
        "rlnClassPriorOffsetX": model.prior_offset_A[:, 0],
        "rlnClassPriorOffsetY": model.prior_offset_A[:, 1],
    }  # fmt: skip
    images = [f"{n:08d}@{name}_classes.mrcs" for n in numbers]
    shells = np.arange(model.box // 2 + 1)
    resolution = estimated_resolution_A(model)
    inside = shells[None, :] <= model.box * model.pixel_A / resolution[:, None]
    counts = model.shell_counts().numpy() * inside
    complete = (model.coverage.numpy() * counts).sum(1) / counts.sum(1)
    return _loop(
        rlnReferenceImage=space.map_names(name, k) if is_space else images,
        **moments,
        rlnClassDistribution=model.fractions,
        rlnAccuracyRotations=model.accuracy_deg,
        rlnAccuracyTranslationsAngst=model.accuracy_A,
        rlnEstimatedResolution=resolution,
        rlnOverallFourierCompleteness=complete,
        **prior,
    )


def sampling_blocks(model: Model) -> dict[str, Table]:
    """Return the blocks of `_sampling.star`."""
    blocks = {"sampling_general": as_list(_sampling(model))}
    if isinstance(model.sampling, Sampling3D):
        rot, tilt = space.directions_of(model.sampling)
        blocks["sampling_directions"] = _loop(rlnAngleRot=rot, rlnAngleTilt=tilt)
    return blocks


def _sampling(model: Model) -> dict[str, object]:
    sampling = model.sampling
    kind = space.sampling_of(sampling) if isinstance(sampling, Sampling3D) else {
        "rlnIs3DSampling": 0, "rlnIs3DTranslationalSampling": 0,
    }  # fmt: skip
    steps = {
        "rlnPsiStep": sampling.psi_step,
        "rlnOffsetRange": sampling.offset_range_A,
        "rlnOffsetStep": sampling.offset_step_A,
    }
    return {
        **kind,
        **steps,
        "rlnHelicalOffsetStep": -1.0,
        "rlnSamplingPerturbInstance": sampling.perturbation,
        "rlnSamplingPerturbFactor": sampling.factor,
        "rlnHealpixOrderOriginal": kind.get("rlnHealpixOrder", 2),
        **{f"{label}Original": value for label, value in steps.items()},
    }


# What this engine never does otherwise, as RELION writes it.
_FIXED = {
    "rlnDoSplitRandomHalves": 0,
    "rlnJoinHalvesUntilThisResolution": -1.0,
    "rlnWidthMaskEdge": 5,
    "rlnDoSolventFscCorrection": 0,
    "rlnSolventMask2Name": "None",
    "rlnBodyStarFile": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnLowresLimitExpectation": -1.0,
    "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": 1,
    "rlnDoFastSubsetOptimisation": 0,
    "rlnDoAutoRefine": 0,
    "rlnDoAutoSampling": 0,
    "rlnAutoLocalSearchesHealpixOrder": 4,
    "rlnNumberOfIterWithoutResolutionGain": 0,
    "rlnNumberOfIterWithoutChangingAssignments": 0,
    "rlnDoSkipAlign": 0,
    "rlnDoSkipRotate": 0,
    "rlnChangesOptimalOrientations": 999.0,
    "rlnChangesOptimalOffsets": 999.0,
    "rlnChangesOptimalClasses": 9999999.0,
    "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0,
    "rlnSmallestChangesClasses": 9999999,
    "rlnLocalSymmetryFile": "None",
    "rlnDoHelicalRefine": 0,
    "rlnIgnoreHelicalSymmetry": 0,
    "rlnFourierMask": "None",
    "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0,
    "rlnHelicalCentralProportion": 0.3,
    "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0,
    "rlnHelicalMaskTubeOuterDiameter": -1.0,
    "rlnHelicalSymmetryLocalRefinement": 0,
    "rlnHelicalSigmaDistance": -1.0,
    "rlnHelicalKeepTiltPriorFixed": 0,
    "rlnHasConverged": 0,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnDoIgnoreCtfUntilFirstPeak": 0,
    "rlnCtfDataArePhaseFlipped": 0,
    "rlnDoOnlyFlipCtfPhases": 0,
    "rlnRefsAreCtfCorrected": 1,
    "rlnFixSigmaNoiseEstimates": 0,
    "rlnFixSigmaOffsetEstimates": 0,
    "rlnMaxNumberOfPooledParticles": 3,
}


def optimiser(name: str, model: Model, options: Options) -> dict[str, object]:
    """Return what `_optimiser.star` says; RELION's readers ask for all of it."""
    return _FIXED | {
        "rlnOutputRootName": name.rpartition("_it")[0],
        "rlnModelStarFile": f"{name}_model.star",
        "rlnExperimentalDataStarFile": f"{name}_data.star",
        "rlnOrientSamplingStarFile": f"{name}_sampling.star",
        "rlnCurrentIteration": model.iteration,
        # Where particles have joined there may be more than were planned.
        "rlnNumberOfIterations": max(options.iterations, model.iteration),
        "rlnAdaptiveOversampleOrder": model.sampling.order,
        "rlnAdaptiveOversampleFraction": options.adaptive_fraction,
        "rlnRandomSeed": options.seed,
        "rlnParticleDiameter": options.particle_diameter_A,
        "rlnDoZeroMask": int(options.zero_mask),
        "rlnDoSolventFlattening": int(options.flatten_solvent),
        "rlnSolventMaskName": model.mask_name,
        "rlnHighresLimitExpectation": options.strict_highres_A or -1.0,
        "rlnDoGradientRefine": int(options.gradient),
        "rlnDoStochasticGradientDescent": int(options.gradient),
        "rlnMaximumSignificantPoses": options.max_significants or -1,
        "rlnBestResolutionThusFar": model.resolution_shell / (model.box * model.pixel_A),
        "rlnOverallAccuracyRotations": float(model.accuracy_deg.min()),
        "rlnOverallAccuracyTranslationsAngst": float(model.accuracy_A.min()),
        "rlnHasHighFscAtResolLimit": int(model.has_high_fsc),
        "rlnDoCorrectNorm": int(options.norm),
        "rlnDoCorrectScale": int(options.scale),
        "rlnDoCorrectCtf": int(options.ctf),
        "rlnDoCenterClasses": int(options.center_classes),
        "rlnDoSkipAlign": int(options.skip_align),
        **_gradient(model, options),
    }


def _gradient(model: Model, options: Options) -> dict[str, object]:
    n = 100_000  # the sizes depend on the particles; RELION computes them again
    return {
        "rlnGradEmIters": 0,
        "rlnGradHasConverged": 0,
        "rlnGradCurrentStepsize": model.step_size,
        "rlnGradSubsetOrder": 0,
        "rlnGradSuspendFinerSamplingIter": -1,
        "rlnGradSuspendLocalSamplingIter": -1,
        "rlnSgdInitialIterationsFraction": 0.3,
        "rlnSgdFinalIterationsFraction": 0.2,
        "rlnSgdMinimumResolution": 20.0,
        "rlnSgdInitialResolution": -1.0,
        "rlnSgdFinalResolution": -1.0,
        "rlnSgdInitialSubsetSize": schedule.batch_size(1, options.iterations, n, 2),
        "rlnSgdFinalSubsetSize": schedule.batch_size(
            options.iterations - 1, options.iterations, n, 2
        ),
        "rlnSgdMuFactor": options.mu,
        "rlnSgdSkipAnneal": 0,
        "rlnSgdClassInactivityThreshold": options.inactivity,
        "rlnSgdSubsetSize": -1,
        "rlnSgdWriteEverySubset": 10,
        "rlnSgdStepsize": -1.0,
        "rlnSgdStepsizeScheme": '""',
        "rlnTau2FudgeScheme": '""',
        "rlnTau2FudgeArg": options.tau2_fudge,
    }


def _write_moments(path: Path, flat: Tensor, model: Model) -> None:
    """Write padded half planes, centred along y, real and imaginary parts side by side along x."""
    size = 2 * model.box
    shaped = flat.reshape(-1, size, size // 2 + 1)
    centred = torch.fft.fftshift(shaped, dim=1).contiguous()
    pairs = torch.view_as_real(centred).reshape(len(centred), size, size + 2)
    write_stack(path, pairs, model.pixel_A)


def _save(root: Path, part: str, blocks: dict[str, Table]) -> None:
    atomic_write(root.with_name(f"{root.name}_{part}.star"), star.dumps(blocks).encode())


def as_list(values: dict[str, object]) -> Table:
    """Return a table of one row, one label in each line."""
    return Table({label: [_text(value)] for label, value in values.items()}, loop=False)


def _loop(**columns: object) -> Table:
    return Table({label: [_text(one) for one in values] for label, values in columns.items()})  # type: ignore[attr-defined]


def _text(value: object) -> str:
    if isinstance(value, Tensor | np.generic):
        value = value.item()
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)
