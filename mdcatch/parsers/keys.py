"""What a document of a kind can say: the keys of its record as JSON, null where it does not.

Source: the reference results of the metadata samples.
"""

_IMAGE_KEYS = (
    "software software_version microscope_id microscope_model voltage_kV cs_mm "
    "image_pixel_size_A pixel_size_A super_resolution_factor binning image_size_px movie_size_px "
    "exposure_time_s total_dose_e_per_A2 dose_on_camera_e_per_image_px n_frames n_frames_estimate "
    "fractionation dose_per_frame_e_per_A2 frame_rate_hz movie_format detector detector_model "
    "counting gain_reference magnification applied_defocus_um lens_defocus_um tilt_angle_deg "
    "tilt_beta_deg stage_um beam_shift beam_tilt image_shift energy_filter_on slit_width_eV "
    "slit_inserted phase_plate c2_aperture objective_aperture spot_index beam_diameter_um "
    "probe_mode acquisition_time grid_square_id foil_hole_id acquisition_area_id "
    "acquisition_seq_id"
)
_MDOC_KEYS = (
    "software software_version microscope_id voltage_kV cs_mm tilt_axis_angle_deg image_file "
    "image_size_px n_sections"
)
_SHOT_KEYS = (
    "frame_dose_sum_e_per_A2 dose_conflict movie_file tilt_angle_deg stage_um pixel_size_A "
    "magnification exposure_time_s n_frames total_dose_e_per_A2 dose_per_frame_e_per_A2 "
    "frame_doses dose_rate_e_per_px_s prior_dose_e_per_A2 binning super_resolution "
    "target_defocus_um lens_defocus_um image_shift rotation_angle_deg spot_index camera_index "
    "slit_width_eV slit_inserted energy_loss_eV phase_plate gain_reference defects_file "
    "acquisition_time navigator_label hole_and_position"
)
_FEI_KEYS = (
    "software software_version microscope_id microscope_model voltage_kV cs_mm "
    "image_size_px n_sections mode image_pixel_size_A header_voxel_A exposure_time_s "
    "total_dose_e_per_A2 n_frames dose_per_frame_e_per_A2 detector detector_model counting "
    "magnification applied_defocus_um lens_defocus_um tilt_angle_deg tilt_beta_deg stage_um "
    "beam_shift image_shift energy_filter_on slit_inserted slit_width_eV phase_plate binning "
    "spot_index beam_diameter_um probe_mode acquisition_time metadata_block_bytes "
    "extended_header_bytes"
)
_MOVIE_KEYS = "n_frames movie_size_px exposure_time_s total_dose_e_per_A2 pixel_size_A"

# By "format kind", else by "format"; in the order in which they are shown.
KEYS: dict[str, tuple[str, ...]] = {
    name: tuple(keys.split())
    for name, keys in {
        "epu_xml": _IMAGE_KEYS,
        "epu_fractions_xml": "file_version detector_model acquisition_id acquisition_time "
        "n_frames_expected n_frames movie_size_px binning counting gain_corrected pixel_format "
        "raw_frames_total raw_frames_per_fraction exposure_time_s all_checksums_valid "
        "grid_square_id foil_hole_id acquisition_area_id acquisition_seq_id",
        "EpuSessionXml": "software_version session_name start_time storage_folders atlas_path "
        "clustering_mode clustering_radius_um dose_fractions_output_format image_file_format "
        "autoloader_slot phase_plate_enabled tilt_angle_deg tilted_acquisition hole_size_um "
        "hole_spacing_um grid_type grid_geometry presets",
        "GridSquareXml": "software_version grid_square_id atlas_node_id image_path "
        "n_target_locations n_selected first_target_ids",
        "AtlasSessionXml": "software_version n_tiles n_grid_square_nodes n_unique_nodes "
        "first_node_ids",
        "SampleXml": "software_version name n_children",
        "ScreeningSessionXml": "software_version name n_children",
        "mdoc frame_set": f"{_MDOC_KEYS} {_SHOT_KEYS}",
        "mdoc frame_set_with_tilts": f"{_MDOC_KEYS} {_SHOT_KEYS}",
        "mdoc tilt_series": f"{_MDOC_KEYS} pixel_size_A",
        "mdoc images": f"{_MDOC_KEYS} pixel_size_A",
        "mdoc image": f"{_MDOC_KEYS} pixel_size_A",
        "mdoc montage": f"{_MDOC_KEYS} pixel_size_A magnification exposure_time_s pieces "
        "n_montage_sections first_section",
        "mrc_fei1": _FEI_KEYS,
        "mrc_fei2": _FEI_KEYS,
        "mrc": f"{_MOVIE_KEYS} image_size_px image_pixel_size_A n_sections mode header_voxel_A",
        "eer": f"{_MOVIE_KEYS} n_frames_declared total_dose_e_per_px dose_per_frame_e_per_A2 "
        "detector detector_model",
        "tiff": f"{_MOVIE_KEYS} pixel_size_source compression rotation_flip gain_reference "
        "defects_file voltage_kV",
    }.items()
}
