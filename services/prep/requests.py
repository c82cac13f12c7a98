"""What the prep tasks are asked and what they answer: Structs without any heavy import."""

import msgspec


class MotionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Correct one movie. Paths are below the project unless absolute."""

    movie: str
    movie_path: str
    root: str  # outputs are <root>.mrc, <root>_noDW.mrc, <root>_PS.mrc, <root>.star
    gain_path: str | None
    gain_name: str | None  # as written into the per-movie STAR
    gain_rotation: int
    gain_flip: int
    width_px: int | None  # None, like the next two: whatever the file has
    height_px: int | None
    n_frames: int | None
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


class CtfRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fit the CTF of one micrograph."""

    movie: str
    power_spectrum: str
    root: str  # outputs are <root>_PS.ctf, <root>_PS_avrot.txt, <root>_PS.txt
    # Pixel of the micrograph that `power_spectrum` then is; outputs are <root>.ctf and so on.
    image_pixel_A: float | None = None
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


class CtfResult(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted CTF."""

    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    phase_shift_deg: float
    figure_of_merit: float
    max_resolution_A: float
    reliable: bool
