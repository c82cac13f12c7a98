"""The numbers of one micrograph with their units, by the stage that found them."""

from pathlib import Path

from services.kit.events import (
    MicrographCorrected,
    MicrographCtf,
    MicrographOverridden,
    MovieSettled,
    ParticlesExtracted,
    ParticlesPicked,
)
from services.report.facts import Story
from services.report.readings import without_suffix
from services.report.values import described, fit_of, movie_pixel_A

Rows = list[tuple[str, str]]


def groups(project: Path, story: Story, limit_A: float | None) -> list[tuple[str, Rows]]:
    """Return title and (label, value with unit) of each group that has any.

    Parameters
    ----------
    project
        RELION project folder, for which files are there.
    story
        Of the micrograph.
    limit_A
        To which the CTF of a selected micrograph has to fit; None: no limit.
    """
    settled, fit = described(story), fit_of(story)
    moved, picked = story.get(MicrographCorrected), story.get(ParticlesPicked)
    extracted, ruling = story.get(ParticlesExtracted), story.get(MicrographOverridden)
    found: list[tuple[str, Rows]] = [
        ("Exposure", _exposure(settled) if settled else []),
        ("Motion", _motion(moved, movie_pixel_A(story)) if moved else []),
        ("CTF", _ctf(fit, limit_A) if fit else []),
        ("Picks", _picks(picked) if picked else []),
        ("Particles", _particles(extracted) if extracted else []),
        ("Decision", _decision(ruling) if ruling else []),
        ("Files", _files(project, story)),
    ]
    return [(title, rows) for title, rows in found if rows]


def _exposure(body: MovieSettled) -> Rows:
    rows = [
        ("acquired", body.acquired_at or "not known"),
        ("movie", f"{body.width_px} × {body.height_px} px, {body.n_frames} frames, {body.format}"),
        ("pixel", f"{body.pixel_size_A:.4g} Å"),
        ("voltage, Cs", f"{body.voltage_kV:g} kV, {body.spherical_aberration_mm:g} mm"),
        ("dose", f"{body.dose_e_A2:.3g} e/Å², {body.dose_per_frame_e_A2:.3g} e/Å² per frame"),
        ("optics group", f"{body.optics_group}"),
    ]
    known = {
        "grid square": body.grid_square,
        "hole": body.foil_hole,
        "area of the hole": body.acquisition_area,
        "detector": body.detector,
    }
    rows += [(label, text) for label, text in known.items() if text]
    if body.stage_um is not None:
        rows.append(("stage", ", ".join(f"{value:.1f}" for value in body.stage_um) + " µm"))
    if body.applied_defocus_um is not None:
        rows.append(("defocus, asked for", f"{body.applied_defocus_um:g} µm"))
    if body.flags:
        rows.append(("remarks", ", ".join(body.flags)))
    return rows


def _motion(body: MicrographCorrected, pixel_A: float) -> Rows:
    rows = [
        ("total", f"{body.motion_total_px * pixel_A:.1f} Å"),
        ("first 4 e/Å²", f"{body.motion_early_px * pixel_A:.1f} Å"),
        ("later", f"{body.motion_late_px * pixel_A:.1f} Å"),
        ("converged", "yes" if body.converged else "no"),
        ("hot pixels", f"{body.hot_pixels}"),
        ("micrograph", f"{body.width_px} × {body.height_px} px of {body.pixel_size_A:.4g} Å"),
        ("computed in", f"{body.took_s:.2f} s"),
    ]
    if body.local_rmsd_px is not None:
        rows.insert(3, ("patches from the model", f"{body.local_rmsd_px * pixel_A:.2f} Å rms"))
    return rows


def _ctf(body: MicrographCtf, limit_A: float | None) -> Rows:
    limit = "" if limit_A is None else f" (limit {limit_A:g} Å)"
    rows = [
        ("defocus U, V", f"{body.defocus_u_A / 1e4:.3f}, {body.defocus_v_A / 1e4:.3f} µm"),
        (
            "astigmatism",
            f"{abs(body.defocus_u_A - body.defocus_v_A):.0f} Å at {body.defocus_angle_deg:.1f}°",
        ),
        ("fits to", f"{body.max_resolution_A:.2f} Å{limit}"),
        ("figure of merit", f"{body.figure_of_merit:.4f}"),
        ("to be trusted", "yes" if body.reliable else "no: " + "; ".join(body.doubts)),
        ("computed in", f"{body.took_s:.2f} s"),
    ]
    more = (
        ("phase shift", body.phase_shift_deg or None, "{:.1f}°"),
        ("cross-validated", body.cross_validated_A, "{:.2f} Å"),
        ("rings too narrow from", body.aliasing_A, "{:.2f} Å"),
        ("ice ring density", body.ice_ring_density, "{:.3g}"),
        ("iciness", body.iciness, "{:.2f} (bad above 1.5)"),
        ("ice ring", body.ice_peak_sigma, "{:.1f} standard errors"),
        ("thickness", body.thickness_A, "{:.0f} Å"),
        ("mean intensity", body.mean_intensity, "{:.4g}"),
        ("tilt", body.tilt_angle_deg, "{:.1f}°"),
        ("tilt axis", body.tilt_axis_deg, "{:.1f}°"),
    )
    return rows + [(label, form.format(value)) for label, value, form in more if value is not None]


def _picks(body: ParticlesPicked) -> Rows:
    rows = [
        ("number", f"{body.n_particles}"),
        ("mean figure of merit", f"{body.mean_figure_of_merit:.3f}"),
        ("computed in", f"{body.took_s:.2f} s"),
    ]
    if body.nearest_neighbour_A is not None:
        rows.insert(1, ("to the nearest neighbour", f"{body.nearest_neighbour_A:.0f} Å, median"))
    return rows


def _particles(body: ParticlesExtracted) -> Rows:
    size_A = body.box_px * body.pixel_size_A
    return [
        ("number", f"{body.n_particles}"),
        ("box", f"{body.box_px} px of {body.pixel_size_A:.4g} Å, {size_A:.0f} Å"),
        ("computed in", f"{body.took_s:.2f} s"),
    ]


def _decision(body: MicrographOverridden) -> Rows:
    words = {True: "kept", False: "rejected", None: "left to the selection"}[body.keep]
    who = f" by {body.user}" if body.user else ""
    return [("a person's word", f"{words}{who}{': ' + body.reason if body.reason else ''}")]


def _files(project: Path, story: Story) -> Rows:
    moved, fit = story.get(MicrographCorrected), fit_of(story)
    picked, extracted = story.get(ParticlesPicked), story.get(ParticlesExtracted)
    named = {
        "micrograph": moved and moved.micrograph,
        "motion": moved and moved.metadata_star,
        "CTF": fit and without_suffix(fit.ctf_image),
        "picks": picked and picked.coordinates,
        "particles": extracted and extracted.stack,
    }
    return [
        (label, name if (project / name).exists() else f"{name} (is not there)")
        for label, name in named.items()
        if name
    ]
