"""What the prep tasks are asked and what they answer: Structs without any heavy import."""

import msgspec


class MotionRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Correct one movie. Paths are below the project unless absolute."""

    movie: str
    movie_path: str
    # <root>.mrc, .star, .log and _shifts.png are made, and as asked _noDW, _PS, _EVN and _ODD.mrc.
    root: str
    gain_path: str | None
    # As written into the per-movie STAR; where it is another file than `gain_path`, that one is
    # made, once for all movies.
    gain_name: str | None
    gain_rotation: int
    gain_flip: int
    width_px: int | None  # of the file; None, like the next two: whatever it has
    height_px: int | None
    n_frames: int | None  # of an EER movie: raw frames
    pixel_size_A: float
    voltage_kV: float
    dose_per_frame_e_A2: float
    pre_exposure_e_A2: float
    first_frame: int
    last_frame: int
    bin_factor: float
    bfactor_px2: float | None  # None: from the pixel size
    dose_weighting: bool
    save_nodw: bool
    save_ps: bool
    dose_per_ps_e_A2: float
    float16: bool
    # Of an EER movie; pixel, dose and frame numbers are those of its fractions as rendered.
    eer_grouping: int | None = None  # raw frames per fraction
    eer_upsampling: int | None = None
    patches: tuple[int, int] = (1, 1)  # along x and y; local motion needs three along both
    group_frames: int = 1
    even_odd: bool = False
    ps_size: int = 512
    max_iter: int = 10
    early_dose_e_A2: float = 4.0
    defect_path: str | None = None
    defects_found: bool = False  # beside the movie, not asked for: what cannot be read is left out
    skip_defects: bool = False
    frame_doses: tuple[tuple[float, int], ...] | None = None  # e/A^2, how many such frames


class MotionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A corrected movie."""

    width_px: int
    height_px: int
    pixel_size_A: float
    motion_total_px: float
    motion_early_px: float
    motion_late_px: float
    converged: bool
    hot_pixels: int
    local_rmsd_px: float | None = None  # of the patches from the local model; None without one
    reference_note: str = ""  # how the gain was made to fit, or why defects are not used


class CtfRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fit the CTF of one micrograph."""

    movie: str
    power_spectrum: str
    root: str  # outputs are <root>_PS.ctf, <root>_PS_avrot.txt, <root>_PS.txt
    # Pixel of the micrograph that `power_spectrum` then is; outputs are <root>.ctf and so on.
    image_pixel_A: float | None = None
    window_px: int | None = None  # only this square in its middle is fitted
    # For what the spectrum does not suffice: rings too narrow for its box, a tilt.
    micrograph: str | None = None
    micrograph_pixel_A: float | None = None
    voltage_kV: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    box_px: int
    resolution_min_A: float
    resolution_max_A: float
    defocus_min_A: float
    defocus_max_A: float
    defocus_step_A: float
    astigmatism_A: float
    phase_shift: bool
    phase_min_deg: float
    phase_max_deg: float
    phase_step_deg: float
    slow_search: bool = False
    tilt: bool = False
    thickness: bool = False


class CtfResult(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted CTF."""

    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    phase_shift_deg: float
    figure_of_merit: float
    max_resolution_A: float
    reliable: bool
    doubts: tuple[str, ...] = ()  # against the fit: noise, score, range, overfocus
    cross_validated_A: float | None = None
    aliasing_A: float | None = None  # where the rings become too narrow for the box
    ice_ring_density: float | None = None
    iciness: float | None = None
    ice_peak_sigma: float | None = None
    thickness_A: float | None = None
    tilt_angle_deg: float | None = None
    tilt_axis_deg: float | None = None
    tilt_log_odds: float | None = None
    mean_intensity: float | None = None  # of the micrograph; None without one
