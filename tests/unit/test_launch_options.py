"""What a session's metadata and a particle come to: Scheme options, parameters, workflow."""

import json
from pathlib import Path, PurePosixPath

import pytest

from mdcatch.launch import options, parameters, scipion
from mdcatch.launch.files import Files
from mdcatch.launch.options import prep_options, proc_options
from schemer import settings, templates
from tests.launching import known, record, request
from tests.shared import shared

PATTERN = "Movies/x_*.tiff"


def asked(**fields):
    return request(**{"pipeline": "relion", "particle_diameter_A": 180.0, **fields})


def prep(wanted, told, **copied):
    return prep_options(wanted, told, copied, PATTERN)


# ---- prep


def test_super_resolution_of_a_k3():
    """0.53 A per super-resolution pixel, 50 e/A2 in 50 frames: binned by two, one e/A2 each."""
    wanted = asked()
    found = prep(wanted, known(wanted), gain="gain.tiff", defects="d.txt", mtf="mtf.star")
    assert found == {
        "prep__do_at_most": "50",
        "prep__importmovies__fn_in_raw": PATTERN,
        "prep__importmovies__is_multiframe": "Yes",
        "prep__importmovies__optics_group_name": "opticsGroup1",
        "prep__importmovies__angpix": "0.53",
        "prep__importmovies__kV": "300",
        "prep__importmovies__Cs": "2.7",
        "prep__importmovies__Q0": "0.1",
        "prep__importmovies__fn_mtf": "mtf.star",
        "prep__motioncorr__fn_gain_ref": "gain.tiff",
        "prep__motioncorr__gain_rot": "No rotation (0)",
        "prep__motioncorr__gain_flip": "No flipping (0)",
        "prep__motioncorr__fn_defect": "d.txt",
        "prep__motioncorr__bin_factor": "2",
        "prep__motioncorr__dose_per_frame": "1",
        "prep__motioncorr__group_frames": "1",
        "prep__motioncorr__patch_x": "7",
        "prep__ctffind__do_phaseshift": "No",
    }


@pytest.mark.parametrize(
    ("frames", "dose", "groups"),
    [
        (50, "1", "1"),
        (100, "0.5", "2"),
        (200, "0.25", "3"),
        (63, "0.793651", "2"),
        (62, "0.806452", "1"),
    ],
)
def test_faint_frames_are_grouped(frames, dose, groups):
    found = prep(asked(), known(asked(), frames=frames))
    assert found["prep__motioncorr__dose_per_frame"] == dose
    assert found["prep__motioncorr__group_frames"] == groups


def test_eer_carries_the_real_dose_of_a_fraction():
    """28.5 e/A2 in 196 frames: 0.1454 each, 7 of them 1.018; the leftover frames are dropped."""
    falcon = {
        "detector": "EF-Falcon",
        "detector_model": "Falcon 4i",
        "super_resolution_factor": 1,
        "movie_size_px": (4096, 4096),
        "total_dose_e_per_A2": 28.5,
    }
    told = known(asked(), movie="Data/a_EER.eer", frames=196, **falcon)
    found = prep(asked(), told)
    assert found["prep__motioncorr__eer_grouping"] == "7"
    assert found["prep__motioncorr__dose_per_frame"] == "1.01786"
    assert found["prep__motioncorr__group_frames"] == "1"
    assert found["prep__motioncorr__bin_factor"] == "1"
    assert found["prep__motioncorr__patch_x"] == "5"
    finer = known(asked(dose_per_fraction_e_A2=0.5), "a_EER.eer", 196, **falcon)
    assert prep(asked(), finer)["prep__motioncorr__eer_grouping"] == "3"


def test_the_person_and_the_files_are_heard():
    wanted = asked(pixel_size_A=0.6, dose_e_A2=25.0, voltage_kV=200.0, spherical_aberration_mm=1.4)
    told = known(wanted, phase_plate=True, files=Files(gain_rotation=3, gain_flip=1))
    found = prep(wanted, told)
    names = ("angpix", "kV", "Cs")
    assert [found[f"prep__importmovies__{name}"] for name in names] == ["0.6", "200", "1.4"]
    assert found["prep__motioncorr__dose_per_frame"] == "0.5"
    assert found["prep__motioncorr__gain_rot"] == "270 degrees (3)"
    assert found["prep__motioncorr__gain_flip"] == "Flip upside down (1)"
    assert found["prep__ctffind__do_phaseshift"] == "Yes"
    assert prep(asked(batch=7), told)["prep__do_at_most"] == "7"


# ---- proc: 1.06 A per pixel


def test_boxes_of_a_particle():
    """180 A are 169.8 px: mask 1.1 of it rounded up 187 px, box 1.5 of it rounded up to even."""
    found = proc_options(asked(), known(asked()))
    assert found["proc__extract__extract_size"] == "256"
    assert found["proc__extract__rescale"] == "96"  # 1.06 x 254.7 / 96 = 2.81 A
    assert found["proc__extract__do_rescale"] == "Yes"
    masks = {
        found[f"proc__{job}__particle_diameter"] for job in ("class2d", "inimodel3d", "refine3d")
    }
    assert masks == {"198"}  # int(187 x 1.06)
    assert found["proc__extract__bg_diameter"] == "187"
    assert found["proc__autopick__log_diam_min"] == "149"
    assert found["proc__autopick__log_diam_max"] == "180"
    assert found["proc__autopick__topaz_particle_diameter"] == "180"
    assert found["proc__do_log"] == "True" and found["proc__autopick__use_gpu"] == "No"
    assert not any("helical" in key or "helix" in key for key in found)


def test_boxes_of_a_filament():
    """180 A wide: tube 1.2 of it, mask 1.62, box 1.8, boxes a tenth of a box apart."""
    wanted = asked(helical=True, picker="cryolo", picker_model="/m.h5")
    found = proc_options(wanted, known(wanted))
    assert found["proc__extract__extract_size"] == "306"  # 1.8 x 169.8 = 305.7
    assert found["proc__class2d__particle_diameter"] == "292"  # int(ceil(275.1) x 1.06)
    for job in ("extract", "class2d"):
        assert found[f"proc__{job}__helical_tube_outer_diameter"] == "216"
        assert found[f"proc__{job}__helical_rise"] == "32.86"  # 31 px
    assert found["proc__extract__do_extract_helix"] == found["proc__class2d__do_helix"] == "Yes"
    assert float(found["proc__min_nr_parts_3d"]) == 1e9
    assert found["proc__cryolo_model"] == "/m.h5"
    assert "proc__autopick__log_diam_max" not in found and "proc__do_log" not in found


def test_topaz_and_its_model():
    found = proc_options(asked(picker="topaz"), known(asked()))
    assert found["proc__do_log"] == "False" and found["proc__topaz_model"] == ""
    assert found["proc__autopick__use_gpu"] == found["proc__extract__do_fom_threshold"] == "Yes"
    found = proc_options(asked(picker="topaz", picker_model="/m.sav"), known(asked()))
    assert found["proc__topaz_model"] == "/m.sav"


@pytest.mark.parametrize(
    ("picker", "autopick"),
    [("log", ("No", "1")), ("topaz", ("Yes", "1")), ("cryolo", (None, None))],
)
def test_gpus_are_spread(picker, autopick):
    found = proc_options(asked(gpus="1,3", picker=picker, picker_model="/m"), known(asked()))
    assert found["proc__class2d__gpu_ids"] == found["proc__inimodel3d__gpu_ids"] == "1,3"
    assert found["proc__refine3d__gpu_ids"] == "1:3"
    assert found["proc__class2d__use_gpu"] == found["proc__refine3d__use_gpu"] == "Yes"
    assert found.get("proc__autopick__use_gpu") == autopick[0]
    assert found.get("proc__autopick__gpu_ids") == autopick[1]
    assert (found.get("proc__autopick__param1_value") == "1,3") == (picker == "cryolo")
    without = proc_options(asked(picker=picker), known(asked()))
    assert not any(key.endswith("gpu_ids") for key in without)


@pytest.mark.parametrize("picker", ["log", "topaz"])
def test_every_option_is_one_of_our_schemes(picker):
    wanted = asked(picker=picker, gpus="0")
    given = prep(wanted, known(wanted)) | proc_options(wanted, known(wanted))
    given["prep__motioncorr__eer_grouping"] = "7"
    for name in ("prep", "proc"):
        definition = templates.shipped(name)
        for key, value in given.items():
            if key.startswith(f"{name}__"):
                definition = settings.set_key(definition, key, value)


def test_without_a_diameter_the_schemes_keep_theirs():
    found = proc_options(request(), known(request()))
    assert "proc__extract__extract_size" not in found
    assert found["proc__refine3d__sym_name"] == "C1"


# ---- the text file of a session


def test_session_parameters():
    wanted = asked(symmetry="D2")
    files = Files(gain=Path("/raw/gain.tiff"))
    told = known(wanted, files=files, acquisition_time="2026-11-20T10:15:02+01:00")
    assert parameters.file_name(told) == "EPU_session_params"
    first, empty, *lines = parameters.text(wanted, told).splitlines()
    assert first == (
        "Movies dir: /raw/Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_fractions.tiff"
    )
    assert empty == "" and lines == sorted(lines)
    values = dict(line.split(" = ", 1) for line in lines)
    assert values["PixelSpacing"] == "0.53" and values["MotionCorBinning"] == "2"
    assert values["Dose"] == "50" and values["DosePerFrame"] == "1"
    assert values["NumSubFrames"] == "50" and values["Voltage"] == "300" and values["Cs"] == "2.7"
    assert values["BoxSize"] == "256" and values["BoxSizeSmall"] == "96"
    assert values["MaskSize"] == "187" and values["ParticleDiameter"] == "180"
    assert values["MicroscopeID"] == "3299" and values["Microscope"] == "Krios1"
    assert values["Detector"] == "EF-CCD" and values["DetectorModel"] == "BioQuantum K3"
    assert values["GainReference"] == "/raw/gain.tiff" and values["Symmetry"] == "D2"
    assert "DefectFile" not in values and "EERGrouping" not in values
    assert values["AcquisitionTime"] == "2026-11-20T10:15:02+01:00"


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (record("mdoc", "frame_set", "mdoc"), "SerialEM"),
        (record("mdoc", "frame_set", "mdoc", software="Tomography"), "Tomography"),
        (record("epu_xml", software="EPU"), "EPU"),
        (record("tiff", "movie", "header"), "Unknown"),
        (None, "Unknown"),
    ],
)
def test_the_file_bears_the_programs_name(told, name):
    found = known(asked())._replace(metadata=told)
    assert parameters.file_name(found) == f"{name}_session_params"
    assert parameters.text(asked(), found).startswith("Movies dir: ")


# ---- Scipion


def workflow(picker="log", **fields):
    wanted = asked(pipeline="scipion", picker=picker, **fields)
    protocols = scipion.workflow(wanted, known(wanted), {"gain": "gain.tiff"})
    assert json.loads(scipion.dumps(protocols)) == protocols
    return {one["object.id"]: one for one in protocols}, protocols


def pointers(protocol):
    """Return the ids of the protocols that one takes its input from."""
    texts = [value for key, value in protocol.items() if key.startswith(("input", "prev"))]
    flat = [one for text in texts for one in (text if isinstance(text, list) else [text])]
    return {one.partition(".")[0] for one in flat if isinstance(one, str) and one[:1].isdigit()}


@pytest.mark.parametrize(
    ("picker", "model", "names"),
    [
        ("log", None, ["ProtRelionAutopickLoG"]),
        ("topaz", None, ["TopazProtPicking"]),
        ("topaz", "/m.sav", ["TopazProtImport", "TopazProtPicking"]),
        ("cryolo", None, ["SphireProtCRYOLOPicking"]),
        ("cryolo", "/m.h5", ["SphireProtCryoloImport", "SphireProtCRYOLOPicking"]),
    ],
)
def test_the_workflow_is_one_chain(picker, model, names):
    by_id, protocols = workflow(picker, picker_model=model)
    classes = [one["object.className"] for one in protocols]
    assert classes == [
        "ProtImportMovies",
        "ProtRelionMotioncor",
        "CistemProtCTFFind",
        *names,
        "ProtRelionExtractParticles",
        "ProtMonitorSummary",
    ]
    seen = set()
    for one in protocols:
        assert pointers(one) <= seen, one["object.className"]
        seen.add(one["object.id"])
    assert len(by_id) == len(protocols)
    monitored = set(protocols[-1]["inputProtocols"])
    assert monitored == {one["object.id"] for one in protocols[:-1]} - {scipion.MODEL}


def test_the_workflow_has_the_sessions_values():
    _, (movies, motion, ctf, picking, extraction, _) = workflow()
    assert movies["filesPath"] == "/raw"
    assert movies["filesPattern"] == (
        "Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_fractions.tiff"
    )
    assert (movies["voltage"], movies["sphericalAberration"]) == (300.0, 2.7)
    assert (movies["samplingRate"], movies["dosePerFrame"]) == (0.53, 1.0)
    assert movies["magnification"] == 81000 and movies["dataStreaming"] is True
    assert movies["gainFile"] == "/projects/p/gain.tiff"
    assert (motion["binFactor"], motion["groupFrames"], motion["patchX"]) == (2.0, 1, 7)
    assert motion["defectFile"] is None and motion["inputMovies"] == "1.outputMovies"
    assert ctf["findPhaseShift"] is False
    assert (picking["minDiameter"], picking["maxDiameter"]) == (149, 180)
    assert (extraction["boxSize"], extraction["rescaledSize"]) == (256, 96)
    assert extraction["backDiameter"] == 187


def test_topaz_is_given_eight_angstrom_pixels():
    _, protocols = workflow("topaz", gpus="0,1")
    picking = protocols[3]
    assert picking["scale"] == 8  # 1.06 A x 8 = 8.5 A
    assert picking["radius"] == 11  # 90 A / 8.48 A
    assert picking["modelInitialization"] == 1 and picking["prevTopazModel"] is None
    assert picking["gpuList"] == "0 1" and picking["numberOfThreads"] == 3
    trained = workflow("topaz", picker_model="/m.sav")[1]
    assert trained[3]["modelPath"] == "/m.sav"
    assert trained[4]["modelInitialization"] == 0
    assert trained[4]["prevTopazModel"] == "2.outputModel"


def test_cryolo_takes_the_trained_model():
    assert workflow("cryolo")[1][3]["inputModelFrom"] == 0
    trained = workflow("cryolo", picker_model="/m.h5", gpus="0,1")[1]
    assert trained[4]["inputModelFrom"] == 2
    assert trained[4]["inputModel"] == f"{trained[3]['object.id']}.outputModel"
    assert trained[4]["gpuList"] == "0, 1" and trained[4]["numberOfThreads"] == 2


def test_the_workflow_has_the_samples_fields():
    """Each protocol has just the fields of the one in MDCatch's sample; crYOLO's model is more."""
    sample = json.loads(shared("data/schemes/mdcatch-2.5/template.json").read_text())
    ours = {one["object.className"]: one for one in workflow("cryolo")[1]}
    assert [one["object.className"] for one in sample] == list(ours)
    for theirs in sample:
        mine = ours[theirs["object.className"]]
        assert set(mine) - {"inputModel"} == set(theirs)
        for key, value in theirs.items():
            assert type(mine[key]) is type(value) or value is None or mine[key] is None, key


# ---- names of movies


@pytest.mark.parametrize(
    ("movie", "pattern"),
    [
        (
            "Images-Disc2/GridSquare_18/Data/FoilHole_1_Data_2_3_20261120_100013_fractions.tiff",
            "Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_fractions.tiff",
        ),
        (
            "Images-Disc1/GridSquare_18/Data/FoilHole_1_Data_2_3_20261120_100013_EER.eer",
            "Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*_EER.eer",
        ),
        (
            "Images-Disc1/GridSquare_18/Data/FoilHole_1_Data_2_3_20261120_1000-0123.mrc",
            "Images-Disc*/GridSquare_*/Data/FoilHole_*_Data_*-*.mrc",
        ),
        ("FoilHole_1_Data_2_3_20261120_100013_Fractions.mrc", "FoilHole_*_Data_*_Fractions.mrc"),
        ("frames/img_00012_Jul30_07.56.47.tif", "frames/*.tif"),
        ("a.b.eer", "*.eer"),
    ],
)
def test_a_pattern_stands_for_all_movies_of_a_session(movie, pattern):
    from mdcatch.launch.newest import pattern_of

    assert pattern_of(PurePosixPath(movie)) == pattern
    assert PurePosixPath(movie).match(pattern)


def test_ctffind_and_numbers():
    assert options.ctffind_option(None) == {}
    assert options.ctffind_option("/x/ctffind") == {"prep__ctffind__fn_ctffind_exe": "/x/ctffind"}
    assert [options.text(one) for one in (None, 300.0, 0.53, 1 / 3)] == [
        "",
        "300",
        "0.53",
        "0.333333",
    ]
