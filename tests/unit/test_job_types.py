"""The registry of RELION's job types: options, labels, inputs, outputs, and reading job.star."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemer.errors import SchemeError
from schemer.jobs import JobFile, check_options, find
from schemer.jobs.environment import with_environment
from schemer.jobs.types import ALL
from tests.shared import SHARED, shared

DEFAULTS = "data/schemes/relion-5.0.1-job-defaults"
FOLDER = SHARED / DEFAULTS
DEFAULT_FILES = sorted(path.name for path in FOLDER.glob("*job.star"))
NAMES = [one.label for one in ALL]
TOMO = ("motioncorr", "ctffind", "class3d", "refine3d", "initialmodel")

MOVIES = "MicrographMovieGroupMetadata.star.relion"
MICROGRAPHS = "MicrographGroupMetadata.star.relion"
COORDINATES = "MicrographCoordsGroup.star.relion"
PARTICLES = "ParticleGroupMetadata.star.relion"
IMAGES = "Image2DGroupMetadata.star.relion"
OPTIMISER = "OptimiserData.star.relion"


def filled(label, tomo=False, **options):
    """Return a type and its complete options."""
    kind = find(label, tomo=tomo)
    complete, unknown = kind.complete(options)
    assert unknown == ()
    return kind, complete


# Options


def test_the_registry_has_all_types_once():
    assert len(NAMES) == len(set(NAMES)) == 32
    assert sum(path.endswith(".is_tomo.job.star") for path in DEFAULT_FILES) in (0, len(TOMO))


@pytest.mark.parametrize("name", DEFAULT_FILES)
def test_every_default_file_has_our_options_and_is_written_as_it_was(name):
    path = FOLDER / name
    theirs = JobFile.load(path)
    assert theirs.is_tomo == (".is_tomo." in name)
    complete, unknown = theirs.type.complete({})
    assert complete == theirs.options and unknown == ()
    assert check_options(theirs.options, theirs.type, name) == ()
    # Only the padding of the block data_job is not RELION's.
    assert JobFile(theirs.label, complete, is_tomo=theirs.is_tomo).dumps().split() == (
        path.read_text().split()
    )


def test_kinds_and_choices_are_relions():
    lines = shared(f"{DEFAULTS}/joboptions.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    for line in lines[1:]:
        row = dict(zip(names, line.split("\t"), strict=True))
        kind = find(row["job_label"], tomo=row["is_tomo"] == "1")
        option = kind.options[row["option"]]
        assert (option.kind, option.default) == (row["kind"], row["default"])
        assert (kind.folder, kind.number) == (row["dirname"], int(row["type_id"]))
        if option.kind == "radio":
            assert "|".join(option.choices) == row["choices"] and option.default in option.choices
        if option.kind == "inputnode":
            assert option.node == row["node_type"]


def test_every_shipped_job_loads_and_its_dead_options_are_named():
    paths = [path for path in shared("data/schemes").rglob("job.star") if "traces" not in str(path)]
    assert len(paths) >= 35
    notes = set()
    for path in paths:
        job = JobFile.load(path)
        notes.update(check_options(job.options, job.type, "X"))
    assert "X: option 'skip_gridding' belongs to older versions of relion.refine3d" in str(notes)
    assert "X: option 'threshold_autopick' is empty" in str(notes)
    assert not any("is not one of" in note for note in notes)


@pytest.mark.parametrize("label", NAMES)
def test_labels_and_folders_lead_to_the_type(label):
    kind = find(label)
    assert find(f"{label}.coldstream.ranker") is kind
    shares_folder = kind.label in (
        "relion.importtomo",
        "relion.pseudosubtomo",
        "relion.ctfrefinetomo",
        "relion.framealigntomo",
    )
    assert (find(kind.folder) is kind) != shares_folder
    for name in kind.inputs(dict.fromkeys(kind.options, "Yes")):
        assert kind.options[name].node


def test_folders_of_4_0_and_unknown_labels():
    assert find("PseudoSubtomo").label == "relion.pseudosubtomo"
    with pytest.raises(SchemeError, match=r"'relion.motion' is not a known job type.*relion.ctf"):
        find("relion.motion")


@given(st.dictionaries(st.sampled_from(sorted(find("relion.select").options)), st.text()))
def test_completing_is_done_once(given_options):
    kind = find("relion.select")
    complete, unknown = kind.complete(given_options)
    assert kind.complete(complete) == (complete, ()) and unknown == ()
    assert set(complete) == set(kind.options) and list(complete) == sorted(complete)
    assert complete | given_options == complete


# The environment


def test_the_environment_changes_defaults():
    environ = {
        "RELION_QUEUE_USE": "yes",
        "RELION_QUEUE_NAME": "gpu",
        "RELION_QSUB_COMMAND": "qsub",
        "RELION_QSUB_TEMPLATE": "/site/qsub.sh",
        "RELION_QSUB_EXTRA1": "Hours",
        "RELION_QSUB_EXTRA1_DEFAULT": "12",
        "RELION_QSUB_EXTRA3": "not counted",
        "RELION_QSUB_NRMPI": "4",
        "RELION_QSUB_NRTHREADS": "8",
        "RELION_MINIMUM_DEDICATED": "24",
        "RELION_MOTIONCOR2_EXECUTABLE": "/site/motioncor2",
        "RELION_CTFFIND_EXECUTABLE": "unused here",
    }
    plain = find("relion.motioncorr")
    complete, _ = plain.on(environ).complete({"queuename": "mine"})
    changed = {
        name: value for name, value in complete.items() if plain.complete({})[0].get(name) != value
    }
    assert changed == {
        "do_queue": "Yes",
        "queuename": "mine",
        "qsub": "qsub",
        "qsubscript": "/site/qsub.sh",
        "qsub_extra1": "12",
        "nr_mpi": "4",
        "nr_threads": "8",
        "min_dedicated": "24",
        "fn_motioncor2_exe": "/site/motioncor2",
    }
    assert list(complete) == sorted(complete)
    three = plain.on({**environ, "RELION_QSUB_EXTRA_COUNT": "3"})
    assert three.options["qsub_extra3"].default == ""
    scratch = find("relion.class2d").on({"RELION_SCRATCH_DIR": "/scratch"})
    assert scratch.complete({})[0]["scratch_dir"] == "/scratch"
    assert with_environment(plain.options, {}) == plain.options


@pytest.mark.parametrize(
    ("variable", "value"), [("RELION_QSUB_NRMPI", "many"), ("RELION_QUEUE_USE", "perhaps")]
)
def test_a_wrong_environment_is_named(variable, value):
    with pytest.raises(SchemeError, match=f"{variable}='{value}'"):
        find("relion.motioncorr").on({variable: value})


# Reading job.star


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("do_float16", "True", "is a boolean: value 'True' does not fit; write Yes or No"),
        ("bin_factor", "two", "is a slider: value 'two' does not fit; write a number such as 1"),
        ("gain_rot", "90", r"is a radio: value '90' does not fit; write one of No rotation \(0\)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(option, value, words):
    kind = find("relion.motioncorr")
    with pytest.raises(SchemeError, match=f"a/job.star: option '{option}' {words}"):
        check_options({option: value}, kind, "a/job.star")
    assert check_options({option: f"$${value}"}, kind, "a/job.star") == ()


def test_an_unknown_option_is_noted_with_a_near_one():
    notes = check_options({"fn_gain_reff": "x"}, find("relion.motioncorr"), "a/job.star")
    assert notes == (
        "a/job.star: option 'fn_gain_reff' is not one of relion.motioncorr "
        "(did you mean 'fn_gain_ref'?); it is ignored",
    )


def test_files_of_3_x_have_a_number_and_underscores(tmp_path):
    path = tmp_path / "job.star"
    path.write_text(
        "data_job\n\n_rlnJobType 1\n_rlnJobIsContinue 1\n\n"
        "data_joboptions_values\n\nloop_\n_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\n"
        "gain_flip Flip__upside__down__(1)\n\n"
        "data_joboptions_full_definition\n\nloop_\n_a #1\none two three\n\n"
    )
    job = JobFile.load(path)
    assert job == JobFile("relion.motioncorr", {"gain_flip": "Flip upside down (1)"}, True)
    for number in ("11", "x", ""):
        path.write_text(f'data_job\n\n_rlnJobType "{number}"\n_rlnJobIsContinue 0\n\n')
        with pytest.raises(SchemeError, match=r"job.star: block data_job.*_rlnJobTypeLabel"):
            JobFile.load(path)


def test_files_of_a_project_of_3_1_load():
    for path in sorted(shared("data/star/relion_tutorial").rglob("job.star")):
        job = JobFile.load(path)
        assert job.type.folder == path.parent.parent.name
        check_options(job.options, job.type, str(path))


def test_files_of_relion_5_have_our_labels():
    paths = sorted(shared("data/star/relion5_jobs").glob("jobs_spa*job.star"))
    assert len(paths) > 30
    for path in paths:
        job = JobFile.load(path)
        assert check_options(job.options, job.type, path.name) == ()
        assert job.type.process_label(job.options) == job.label


# Labels, inputs, outputs


@pytest.mark.parametrize(
    ("label", "options", "outputs"),
    [
        ("import.movies", {}, [("movies.star", MOVIES)]),
        ("import.movies", {"is_multiframe": "No"}, [("micrographs.star", MICROGRAPHS)]),
        (
            "import.other",
            {"do_raw": "No", "do_other": "Yes", "fn_in_other": "picks/*_pick.star"},
            [("coords_suffix_pick.star", COORDINATES)],
        ),
        (
            "import.other",
            {
                "do_raw": "No",
                "do_other": "Yes",
                "node_type": "Unfiltered half-map (unfil.mrc)",
                "fn_in_other": "half1/run_half1_unfil.mrc",
            },
            [
                ("run_half1_unfil.mrc", "DensityMap.mrc.halfmap"),
                ("run_half2_unfil.mrc", "DensityMap.mrc.halfmap"),
            ],
        ),
        (
            "motioncorr.motioncor2",
            {"do_own_motioncor": "No"},
            [
                ("corrected_micrographs.star", f"{MICROGRAPHS}.motioncorr"),
                ("logfile.pdf", "LogFile.pdf.relion.motioncorr"),
            ],
        ),
        (
            "manualpick.helical",
            {"do_startend": "Yes"},
            [
                ("micrographs_selected.star", MICROGRAPHS),
                ("manualpick.star", f"{COORDINATES}.manualpick.helixstartend"),
            ],
        ),
        (
            "autopick.topaz.train",
            {"do_topaz": "Yes", "do_topaz_train": "Yes", "do_topaz_train_parts": "Yes"},
            [("input_training_coords.star", COORDINATES)],
        ),
        (
            "autopick.log",
            {"do_log": "Yes", "continue_manual": "Yes"},
            [
                ("autopick.star", f"{COORDINATES}.autopick"),
                ("logfile.pdf", "LogFile.pdf.relion.autopick"),
            ],
        ),
        (
            "extract.reextract",
            {"do_reextract": "Yes"},
            [
                ("extractpick.star", f"{COORDINATES}.reextract"),
                ("particles.star", PARTICLES),
                ("reextract.star", f"{COORDINATES}.reextract"),
            ],
        ),
        (
            "extract.helical",
            {"do_extract_helix": "Yes"},
            [
                ("extractpick.star", f"{COORDINATES}.helixstartend"),
                ("particles.star", f"{PARTICLES}.helicalsegments"),
                ("helix_segments.star", f"{COORDINATES}.helixstartend"),
            ],
        ),
        (
            "select.class2dauto",
            {"do_class_ranker": "Yes", "fn_model": "Class2D/job007/run_it200_optimiser.star"},
            [
                ("particles.star", PARTICLES),
                ("class_averages.star", f"{IMAGES}.classaverages"),
                ("rank_optimiser.star", f"{OPTIMISER}.select"),
            ],
        ),
        (
            "select.interactive",
            {"fn_model": "Class2D/job007/run_it200_optimiser.star"},
            [("particles.star", PARTICLES), ("class_averages.star", f"{IMAGES}.classaverages")],
        ),
        (
            "select.interactive",
            {"fn_model": "Class3D/job007/run_it025_optimiser.star"},
            [("particles.star", PARTICLES)],
        ),
        ("select.split", {"do_split": "Yes", "fn_mic": "m.star"}, []),
        (
            "select.onvalue",
            {"do_select_values": "Yes", "do_class_ranker": "Yes", "fn_mic": "m.star"},
            [("micrographs.star", MICROGRAPHS)],
        ),
        (
            "select.filamentsdendrogram",
            {"do_filaments": "Yes"},
            [
                ("run_optimiser.star", f"{OPTIMISER}.select"),
                ("logfile.pdf", "LogFile.pdf.relion.select"),
            ],
        ),
        ("joinstar.movies", {"do_mov": "Yes"}, [("join_movies.star", MOVIES)]),
        ("joinstar", {}, []),
        (
            "class2d.helical",
            {"do_helix": "Yes", "nr_iter_grad": "50"},
            [
                ("run_it050_data.star", f"{PARTICLES}.class2d"),
                ("run_it050_optimiser.star", f"{OPTIMISER}.class2d"),
            ],
        ),
        (
            "class3d",
            {"nr_classes": "2", "nr_iter": "7"},
            [
                ("run_it007_data.star", f"{PARTICLES}.refine3d"),
                ("run_it007_optimiser.star", f"{OPTIMISER}.class3d"),
                ("run_it007_class001.mrc", "DensityMap.mrc.relion.class3d"),
                ("run_it007_class002.mrc", "DensityMap.mrc.relion.class3d"),
            ],
        ),
        ("maskcreate", {}, [("mask.mrc", "Mask3D.mrc.relion")]),
        (
            "multibody",
            {"do_select": "Yes", "eigenval_min": "-2.5"},
            [
                (
                    "analyse_eval001_select_min-3_max999.star",
                    f"{PARTICLES}.flexanalysis.eigenselected",
                ),
                ("analyse_logfile.pdf", "LogFile.pdf.relion.flexanalysis"),
            ],
        ),
        (
            "postprocess",
            {},
            [
                ("postprocess.mrc", "DensityMap.mrc.relion.postprocess"),
                ("postprocess_masked.mrc", "DensityMap.mrc.relion.postprocess.masked"),
                ("logfile.pdf", "LogFile.pdf.relion.postprocess"),
                ("postprocess.star", "ProcessData.star.relion.postprocess"),
            ],
        ),
        (
            "localres.own",
            {"do_resmap_locres": "No", "do_relion_locres": "Yes", "fn_mask": "mask.mrc"},
            [
                ("histogram.pdf", "LogFile.pdf.relion.localres"),
                ("relion_locres_filtered.mrc", "DensityMap.mrc.relion.localresfiltered"),
                ("relion_locres.mrc", "Image3D.mrc.resmap.localresmap"),
            ],
        ),
        ("localres.resmap", {}, [("half1_resmap.mrc", "Image3D.mrc.resmap.localresmap")]),
        ("subtract", {}, [("particles_subtracted.star", f"{PARTICLES}.subtracted")]),
        ("subtract.revert", {"do_fliplabel": "Yes"}, [("original.star", PARTICLES)]),
        (
            "polish.train",
            {"do_param_optim": "Yes", "do_polish": "No"},
            [("opt_params_all_groups.txt", "ParamsData.txt.relion.polish")],
        ),
        (
            "ctfrefine.anisomag",
            {"do_aniso_mag": "Yes"},
            [
                ("logfile.pdf", "LogFile.pdf.relion.ctfrefine"),
                ("particles_ctf_refine.star", f"{PARTICLES}.anisomagrefine"),
            ],
        ),
        ("external", {}, []),
        (
            "framealigntomo",
            {},
            [
                ("optimisation_set.star", "TomoOptimisationSet.star.relion.tomo.polish"),
                ("tomograms.star", "TomogramGroupMetadata.star.relion.tomo.polish"),
                ("particles.star", f"{PARTICLES}.tomo.polish"),
                ("logfile.pdf", "LogFile.pdf.relion.tomo.polish"),
            ],
        ),
        (
            "importtomo",
            {"do_coords": "Yes"},
            [("particles.star", f"{PARTICLES}.tomo.import")],
        ),
        (
            "picktomo",
            {"pick_mode": "filaments"},
            [
                ("particles.star", f"{PARTICLES}.tomo.manualpick.filaments"),
                ("optimisation_set.star", "TomoOptimisationSet.star.relion.tomo.manualpick"),
            ],
        ),
    ],
)
def test_sub_labels_and_outputs_follow_the_options(label, options, outputs):
    kind, complete = filled(f"relion.{label}", **options)
    assert kind.process_label(complete, kind.folder) == f"relion.{label}"
    assert list(kind.output_nodes(complete)) == outputs


@pytest.mark.parametrize(
    ("label", "options", "names"),
    [
        ("import", {}, ""),
        ("motioncorr", {}, "input_star_mics"),
        ("autopick", {"do_log": "Yes"}, "fn_input_autopick"),
        ("autopick", {"do_refs": "Yes"}, "fn_input_autopick fn_refs_autopick"),
        (
            "autopick",
            {"do_refs": "Yes", "do_ref3d": "Yes"},
            "fn_input_autopick fn_ref3d_autopick",
        ),
        ("extract", {}, "star_mics coords_suffix"),
        ("extract", {"do_reextract": "Yes"}, "star_mics fndata_reextract"),
        ("select", {"do_class_ranker": "Yes"}, "fn_model"),
        ("select", {"do_remove_duplicates": "Yes"}, "fn_data"),
        ("joinstar", {"do_part": "Yes"}, "fn_part1 fn_part2 fn_part3 fn_part4"),
        ("class3d", {}, "fn_img fn_ref fn_mask"),
        ("postprocess", {}, "fn_mask fn_in"),
        ("localres", {}, "fn_in fn_mask"),
        ("subtract", {"do_data": "Yes"}, "fn_opt fn_mask fn_data"),
        ("subtract", {"do_fliplabel": "Yes"}, "fn_fliplabel"),
        ("multibody", {}, "fn_in"),
        ("pseudosubtomo", {}, "in_optimisation"),
        (
            "ctfrefinetomo",
            {"use_direct_entries": "Yes"},
            "in_particles in_tomograms in_trajectories in_halfmaps in_refmask in_post",
        ),
        ("picktomo", {}, "in_tomoset"),
    ],
)
def test_inputs_are_the_files_that_are_read(label, options, names):
    kind = find(f"relion.{label}")
    files = {name: f"{name}.star" for name, option in kind.options.items() if option.node}
    _, complete = filled(f"relion.{label}", **files, **options)
    assert [path for path, _ in kind.input_nodes(complete)] == [
        f"{name}.star" for name in names.split()
    ]
    assert kind.input_nodes({**complete, **dict.fromkeys(files, "None")}) == ()


def test_picking_by_hand_goes_on_from_a_job_that_has_run():
    kind, options = filled("relion.autopick", do_log="Yes", continue_manual="Yes")
    assert kind.process_label(options) == "relion.autopick.log"
    assert kind.process_label(options, is_continue=True) == "relion.autopick.continuemanual"
    names = [name for name, _ in kind.output_nodes(options, is_continue=True)]
    assert names == ["autopick.star", "micrographs_selected.star"]


@pytest.mark.parametrize("name", TOMO)
def test_tomography_forms_differ(name):
    spa, tomo = find(f"relion.{name}"), find(f"relion.{name}", tomo=True)
    assert tomo.tomo and not spa.tomo and tomo.folder == spa.folder
    assert set(tomo.options) != set(spa.options)
    files = {name: "x.star" for name, option in tomo.options.items() if option.node}
    complete, _ = tomo.complete(files)
    assert tomo.input_nodes(complete)[0][1].startswith("Tomo")
    assert any("omo" in label for _, label in tomo.output_nodes(complete))


def test_the_label_of_a_refinement_in_tomography():
    kind, options = filled("relion.refine3d", tomo=True, do_helix="Yes")
    assert kind.process_label(options) == "relion.refine3d.tomo.helical"
    last = kind.output_nodes(options)[-1]
    assert last == ("run_optimisation_set.star", "TomoOptimisationSet.star.relion.refine3d")


def test_a_count_that_is_no_number_is_named():
    kind, options = filled("relion.class2d", nr_iter_grad="many")
    with pytest.raises(SchemeError, match="option 'nr_iter_grad': 'many' is not a number"):
        kind.output_nodes(options)
