"""The command lines that RELION forms from job options, and the script for a queue."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemer.errors import SchemeError
from schemer.executors import JobRequest
from schemer.executors.relion import is_queued, queue_script
from schemer.jobs import JobFile, find
from schemer.jobs.commands import commands, programs
from schemer.jobs.commands.line import number_text
from schemer.jobs.types import ALL
from tests.shared import shared

PROCESSES = {
    "prep/importmovies": "Import/job001/",
    "prep/motioncorr": "MotionCorr/job002/",
    "prep/ctffind": "CtfFind/job003/",
    "proc/select_mics": "Select/job004/",
    "proc/autopick": "AutoPick/job005/",
    "proc/extract": "Extract/job006/",
    "proc/class2d": "Class2D/job007/",
    "proc/select_parts": "Select/job008/",
}
PREP = [name for name in PROCESSES if name.startswith("prep/")]
FIRST = dict.fromkeys(PREP, False)
VALUES = {
    "$$ctffind_mics": "CtfFind/job003/micrographs_ctf.star",
    "$$do_log": "Yes",
    "$$do_topaz": "No",
    "$$topaz_model": "model_epoch10.sav",
}


def request(label, process="Job/job001/", is_continue=False, **options):
    """Return a request with the defaults of the type and these options."""
    complete, unknown = find(label).complete(options)
    assert unknown == ()
    return JobRequest(process=process, label=label, options=complete, is_continue=is_continue)


def lines(label, process="Job/job001/", is_continue=False, **options):
    """Return command lines as text, words joined by blanks, without mpirun."""
    return [
        " ".join(line) for line in programs(request(label, process, is_continue, **options), {})
    ]


# The recorded traces of RELION 5.0.1


def traced(name, at_most, is_continue):
    """Return the lines of a job of the recorded Schemes."""
    job = JobFile.load(shared(f"data/schemes/relion-5.0.1/{name}/job.star"))
    options = {}
    for option, value in job.options.items():
        for job_name, process in PROCESSES.items():
            value = value.replace(f"Schemes/{job_name}/", process)
        for variable, text in {**VALUES, "$$do_at_most": at_most}.items():
            value = value.replace(variable, text)
        options[option] = value
    if name == "proc/autopick":
        options["use_gpu"] = "No"
    asked = JobRequest(
        process=PROCESSES[name], label=job.label, options=options, is_continue=is_continue
    )
    return [" ".join(line) for line in programs(asked, {})]


@pytest.mark.parametrize(
    ("trace", "at_most", "visits"),
    [
        ("T1-prep-one-pass", "5", [FIRST]),
        (
            "T2-prep-three-passes-abort",
            "5",
            [FIRST, dict.fromkeys(PREP, True), dict.fromkeys(PREP, True)],
        ),
        ("T3-proc-2d-only", "50", [dict.fromkeys(PROCESSES, False)]),
    ],
)
def test_recorded_command_lines_are_reproduced(trace, at_most, visits):
    theirs = shared(f"data/schemes/traces/{trace}/commands.txt").read_text().splitlines()
    ours = [
        line
        for visit in visits
        for name, is_continue in visit.items()
        for line in traced(name, at_most, is_continue)
    ]
    assert ours == theirs


def test_the_line_in_the_head_of_a_result_is_reproduced():
    folder = "data/star/relion_tutorial/PostProcess/job021"
    job = JobFile.load(shared(f"{folder}/job.star"))
    head = shared(f"{folder}/postprocess.star").read_text()
    [theirs] = [line for line in head.splitlines() if "--pipeline_control" in line]
    options, _ = job.type.complete(job.options)
    [ours] = lines(job.label, "PostProcess/job021/", **options)
    assert ours == f"relion_postprocess {theirs.removeprefix('# ').strip()}"


# Every type

REFINE = "--dont_combine_weights_via_disc --pool 3"


def cases():
    """Return (label and options, command line), as words."""
    text = Path(__file__).with_name("relion_command_lines.txt").read_text(encoding="utf-8")
    pairs = [paragraph.partition("\n")[::2] for paragraph in text.strip().split("\n\n")[1:]]
    return [pytest.param(shlex.split(head), line.split(), id=head) for head, line in pairs]


@pytest.mark.parametrize(("job", "line"), cases())
def test_the_line_of_a_job(job, line):
    options = dict(word.split("=", 1) for word in job[1:])
    [ours] = lines(job[0], **options)
    assert ours.split() == [*line, "--pipeline_control", "Job/job001/"]


def test_arguments_in_quotes_are_one_and_may_be_empty():
    [line] = programs(
        request(
            "relion.autopick",
            fn_input_autopick="m.star",
            do_topaz="Yes",
            do_topaz_pick="Yes",
            topaz_other_args="--threshold 0",
            use_gpu="Yes",
        ),
        {},
    )
    assert line[-6:-2] == ["--topaz_args", " --threshold 0 ", "--gpu", ""]
    joined = request("relion.joinstar", do_mov="Yes", fn_mov1="a", fn_mov2="b", fn_mov4="d")
    assert programs(joined, {})[0][2:4] == ["--i", " a b d "]


def test_a_first_model_is_symmetrised_by_a_second_program():
    refine, forget, align, done = lines(
        "relion.initialmodel", fn_img="p.star", sym_name="D2", nr_classes="3", use_gpu="Yes"
    )
    assert refine == (
        "relion_refine --o Job/job001/run --iter 200 --grad --denovo_3dref --i p.star --ctf --K 3 "
        f"--sym C1 --flatten_solvent --zero_mask {REFINE} --pad 1 --particle_diameter 200 "
        "--oversampling 1 --healpix_order 1 --offset_range 6 --offset_step 2 --auto_sampling "
        "--tau2_fudge 4 --j 1 --gpu  --pipeline_control Job/job001/"
    )
    assert align == (
        "relion_align_symmetry --i Job/job001/run_it200_model.star "
        "--o Job/job001/initial_model.mrc --sym D2 --apply_sym --select_largest_class "
        "--pipeline_control Job/job001/"
    )
    assert forget == "rm -f Job/job001/RELION_JOB_EXIT_SUCCESS"
    assert done == "touch Job/job001/RELION_JOB_EXIT_SUCCESS"


def test_multibody_refinement_is_followed_by_its_analysis():
    bodies = {"fn_in": "run_it012_optimiser.star", "fn_bodies": "bodies.star"}
    refine, analyse = lines("relion.multibody", **bodies, do_select="Yes")
    assert refine == (
        "relion_refine --continue run_it012_optimiser.star --o Job/job001/run "
        "--solvent_correct_fsc --multibody_masks bodies.star --oversampling 1 --healpix_order 4 "
        "--auto_local_healpix_order 4 --offset_range 3 --offset_step 1.5 "
        f"--reconstruct_subtracted_bodies {REFINE} --pad 2 --j 1 --pipeline_control Job/job001/"
    )
    assert analyse == (
        "relion_flex_analyse --PCA_orient --model Job/job001/run_model.star "
        "--data Job/job001/run_data.star --bodies bodies.star --o Job/job001/analyse --do_maps "
        "--k 3 --select_eigenvalue 1 --select_eigenvalue_min -999 --select_eigenvalue_max 999 "
        "--pipeline_control Job/job001/"
    )
    again = lines("relion.multibody", is_continue=True, **bodies)
    assert [line.split()[0] for line in again] == ["relion_flex_analyse"]
    optimiser = "Job/job001/run_it007_optimiser.star"
    refine, analyse = lines("relion.multibody", is_continue=True, fn_cont=optimiser, **bodies)
    assert refine.startswith(f"relion_refine --continue {optimiser} --o Job/job001/run_ct7 --rec")
    assert "--model Job/job001/run_ct7_model.star" in analyse


def test_resmap_gets_links_to_the_half_maps():
    given_options = {"fn_in": "R/job1/run_half2.mrc", "fn_mask": "mask.mrc", "fn_resmap": "ResMap"}
    assert lines("relion.localres", **given_options) == [
        "ln -s ../../R/job1/run_half2.mrc Job/job001/half1.mrc",
        "ln -s ../../R/job1/run_half1.mrc Job/job001/half2.mrc",
        "ResMap --maskVol=mask.mrc --noguiSplit Job/job001/half1.mrc Job/job001/half2.mrc "
        "--vxSize=1 --pVal=0.05 --minRes=0 --maxRes=0 --stepRes=1",
    ]


def test_an_external_program_gets_its_files_and_parameters():
    options = {
        "fn_exe": "python3 'my script.py'",
        "in_mic": "m.star",
        "in_3dref": "map.mrc",
        "param1_label": "gpu",
        "param1_value": "0,1",
        "param3_label": "flag",
        "param4_value": "without a label",
    }
    [line] = programs(request("relion.external.mine", "External/job009/", **options), {})
    assert line == [
        *("python3", "my script.py", "--o", "External/job009/", "--in_mics", "m.star"),
        *("--in_3dref", "map.mrc", "--gpu", "0,1", "--flag", "--j", "1"),
    ]
    [line] = lines("relion.external", "External/job009/", fn_exe="./relion_it_does")
    assert line.endswith("--j 1 --pipeline_control External/job009/")


@pytest.mark.parametrize(
    ("label", "options", "flags"),
    [
        ("relion.autopick", {"do_log": "Yes", "fn_input_autopick": "m.star"}, "unfinished"),
        (
            "relion.autopick",
            {"do_log": "Yes", "fn_input_autopick": "m.star", "do_read_fom_maps": "Yes"},
            "",
        ),
        ("relion.extract", {"star_mics": "m.star", "coords_suffix": "c.star"}, "unfinished"),
        (
            "relion.ctfrefine",
            {"fn_data": "p.star", "fn_post": "f.star", "do_aniso_mag": "Yes"},
            "unfinished",
        ),
        ("relion.select", {"fn_mic": "m.star", "do_select_values": "Yes"}, ""),
    ],
)
def test_a_job_that_goes_on_does_what_is_not_done(label, options, flags):
    [line] = lines(label, is_continue=True, **options)
    assert ("--only_do_unfinished" in line) == bool(flags)


@pytest.mark.parametrize("label", ["class2d", "class3d", "refine3d", "initialmodel"])
def test_a_refinement_goes_on_from_an_optimiser_file(label):
    optimiser = "Job/job001/run_it010_optimiser.star"
    line = lines(f"relion.{label}", is_continue=True, fn_cont=optimiser)[0]
    assert line.startswith(f"relion_refine --continue {optimiser} --o Job/job001/run ")
    assert " --i " not in line and " --K " not in line and " --sym " not in line
    for wrong in ("", "run_optimiser.star"):
        with pytest.raises(SchemeError, match=r"option 'fn_cont'"):
            lines(f"relion.{label}", is_continue=True, fn_cont=wrong)


def test_picking_by_hand_goes_on_in_relions_window():
    [line] = lines(
        "relion.autopick", is_continue=True, continue_manual="Yes", fn_input_autopick="m.star"
    )
    assert line.startswith("relion_manualpick --i m.star --odir Job/job001/ --pickname autopick")


# What the shell would do


def test_relion_is_not_told_what_only_our_classification_knows():
    given = "--random_seed 3 --class_replacement split --maxsig 5"
    [line] = lines("relion.class2d", fn_img="p.star", other_args=given)
    assert " --random_seed 3 --maxsig 5" in line and "class_replacement" not in line


def test_additional_arguments_are_split_and_variables_put_in():
    asked = request(
        "relion.ctffind",
        input_star_mics="m.star",
        fn_ctffind_exe="$RELION_CTFFIND_EXECUTABLE",
        other_args="""--one 'two words' --three "${DIR}/x" $MORE""",
        ctf_win="",
    )
    environ = {"RELION_CTFFIND_EXECUTABLE": "/site/ct f", "DIR": "/d", "MORE": "--a b"}
    [line] = programs(asked, environ)
    assert line[line.index("--ctffind_exe") + 1] == "/site/ct f"
    # An empty value without quotes is no argument to a shell.
    assert line[line.index("--ctfWin") + 1] == "--is_ctffind4"
    assert line[-8:] == [
        *("--one", "two words", "--three", "/d/x", "--a", "b"),
        *("--pipeline_control", "Job/job001/"),
    ]


def test_home_is_put_in():
    asked = request("relion.class2d", fn_img="p.star", scratch_dir="~/scratch")
    assert "/home/me/scratch" in programs(asked, {"HOME": "/home/me"})[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fn_ctffind_exe": "$NOWHERE"}, r"'\$NOWHERE': the environment has no variable NOWHERE"),
        ({"other_args": "--do 'it"}, "option 'other_args': .*quotation"),
        ({"other_args": "--do $$it"}, r"'--do \$\$it' still names a variable of the Scheme"),
    ],
)
def test_text_that_no_shell_could_use_is_refused(options, words):
    with pytest.raises(SchemeError, match=words):
        lines("relion.ctffind", input_star_mics="m.star", **options)


@given(
    st.dictionaries(
        st.sampled_from(["fn_gain_ref", "fn_defect", "input_star_mics", "patch_x"]),
        st.text(st.characters(exclude_characters="$\0", exclude_categories=("Cs",)), min_size=1),
    )
)
def test_values_stay_one_argument(options):
    asked = request("relion.motioncorr", **{"input_star_mics": "m.star", **options})
    [line] = programs(asked, {"HOME": "/home"})
    for option, value in options.items():
        if not value.startswith("~/"):
            assert value in line, option


def test_mpi_programs_are_started_by_mpirun():
    asked = request("relion.class3d", fn_img="p.star", fn_ref="None", nr_mpi="3")
    [line] = commands(asked, {})
    assert line[:4] == ["mpirun", "-n", "3", "relion_refine_mpi"]
    [line] = commands(asked, {"RELION_MPIRUN": "srun --mpi=pmix"})
    assert line[:5] == ["srun", "--mpi=pmix", "-n", "3", "relion_refine_mpi"]
    many = request("relion.class3d", fn_img="p.star", fn_ref="None", nr_mpi="33")
    with pytest.raises(SchemeError, match="33 is more than the 32 processes"):
        commands(many, {})
    assert commands(many, {"RELION_ERROR_LOCAL_MPI": "64"})[0][2] == "33"
    external = request("relion.external", fn_exe="./do_mpi")
    assert commands(external, {})[0][0] == "./do_mpi"


# Refusals


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        ("import", {"do_other": "Yes"}, "exactly one of do_raw, do_other to Yes; now on: do_raw"),
        ("import", {"fn_in_raw": "/data/*.tif"}, "'/data/\\*.tif' is outside the project"),
        ("import", {"optics_group_name": "a_b"}, "'a_b': use only digits, letters and hyphens"),
        ("motioncorr", {}, "option 'input_star_mics' is empty"),
        ("motioncorr", {"input_star_mics": "m", "do_save_ps": "No"}, "do_float16 needs do_save_ps"),
        ("motioncorr", {"input_star_mics": "m", "do_own_motioncor": "No"}, "set it to No"),
        (
            "motioncorr",
            {"input_star_mics": "m", "fn_gain_ref": "g", "gain_rot": "1"},
            "option 'gain_rot': '1' is not one of No rotation",
        ),
        ("motioncorr", {"input_star_mics": "m", "dose_per_frame": "0"}, "above zero"),
        ("autopick", {"fn_input_autopick": "m"}, "do_log, do_topaz, do_refs to Yes; now on: none"),
        (
            "autopick",
            {"fn_input_autopick": "m", "do_log": "Yes", "use_gpu": "Yes"},
            "set use_gpu to No",
        ),
        (
            "autopick",
            {"fn_input_autopick": "m", "do_topaz": "Yes", "do_topaz_train": "Yes"},
            "set use_gpu to Yes",
        ),
        ("extract", {"star_mics": "m"}, "option 'coords_suffix' is empty"),
        ("extract", {"star_mics": "m", "coords_suffix": "c", "extract_size": "0"}, "above zero"),
        ("select", {}, "nothing to select from"),
        ("select", {"fn_mic": "m", "do_split": "Yes", "do_discard": "Yes"}, "only one of"),
        ("select", {"fn_model": "m", "do_split": "Yes"}, "'fn_model' must be empty"),
        ("select", {"fn_mic": "m", "do_remove_duplicates": "Yes"}, "'fn_mic' must be empty"),
        (
            "select",
            {"fn_mic": "m", "do_split": "Yes", "split_size": "-1"},
            "nr_split or split_size above zero",
        ),
        ("joinstar", {"do_part": "Yes", "fn_part1": "a"}, "option 'fn_part2' is empty"),
        ("class2d", {"fn_img": "p", "nr_mpi": "2"}, "VDAM does not work with MPI"),
        ("class2d", {"fn_img": "p", "do_em": "Yes"}, "exactly one of do_em, do_grad"),
        ("class2d", {"fn_img": "p", "psi_sampling": ""}, "'psi_sampling': '' is not a number"),
        (
            "class3d",
            {"fn_img": "p", "fn_ref": "r", "dont_skip_align": "No", "use_gpu": "Yes"},
            "set use_gpu to No",
        ),
        (
            "refine3d",
            {"fn_img": "p", "fn_ref": "r", "sampling": "7 degrees"},
            "'7 degrees' is not one of 30 degrees",
        ),
        ("postprocess", {"fn_mask": "m", "fn_in": "map.mrc"}, "it must hold half1 or half2"),
        ("ctfrefine", {"fn_data": "p", "fn_post": "f"}, "do_ctf is Yes but fits nothing"),
        ("ctfrefine", {"fn_data": "p", "fn_post": "f", "do_ctf": "No"}, "nothing to fit"),
        (
            "polish",
            {"fn_data": "p", "fn_post": "f", "fn_mic": "m", "opt_params": "o", "rescale": "64"},
            "must be even",
        ),
        ("external", {}, "option 'fn_exe' is empty"),
    ],
)
def test_options_that_make_no_line_are_refused(label, options, words):
    with pytest.raises(SchemeError, match=rf"Job/job001/ \(relion.{label}\): .*{words}"):
        lines(f"relion.{label}", **options)


def test_types_without_lines_name_what_would_work():
    known = 0
    for kind in ALL:
        try:
            lines(kind.label)
        except SchemeError as error:
            if "no command lines are known" in str(error):
                assert "command:PROGRAM" in str(error) and kind.label in str(error)
                continue
        known += 1
    assert known == 19
    tomo = find("relion.refine3d", tomo=True).complete({})[0]
    asked = JobRequest(process="Refine3D/job001/", label="relion.refine3d.tomo", options=tomo)
    with pytest.raises(SchemeError, match=r"tomography form of relion.refine3d"):
        programs(asked, {})


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (0, "0"),
        (5 / 3, "1.66667"),
        (1 / 3, "0.333"),
        (0.3, "0.3"),
        (0.0125, "0.013"),
        (999999, "999999"),
        (1234567, "1.2e+06"),
        (0.00012, "1.2e-04"),
        (-4.5, "-4.5"),
    ],
)
def test_computed_numbers_are_written_as_relion_does(value, text):
    assert number_text(value) == text


# Queues

TEMPLATE = """#!/bin/sh
#SBATCH --ntasks=XXXmpinodesXXX --cpus-per-task=XXXthreadsXXX -N XXXnodesXXX
#SBATCH -p XXXqueueXXX -t XXXextra1XXX -o XXXoutfileXXX -e XXXerrfileXXX
# XXXcoresXXX cores, XXXdedicatedXXX on a node, for XXXnameXXX
srun XXXcommandXXX
echo done
"""


def test_a_queue_script_is_filled_in():
    asked = request(
        "relion.class3d",
        fn_img="my p.star",
        fn_ref="None",
        nr_mpi="5",
        nr_threads="4",
        min_dedicated="8",
        do_queue="Yes",
    )
    assert is_queued(asked)
    options = {**asked.options, "qsub_extra1": "12:00"}
    text = queue_script(TEMPLATE, asked.process, options, programs(asked, {}))
    rows = text.splitlines()
    assert rows[:4] == [
        "#!/bin/sh",
        "#SBATCH --ntasks=5 --cpus-per-task=4 -N 3",
        "#SBATCH -p openmpi -t 12:00 -o Job/job001/run.out -e Job/job001/run.err",
        "# 20 cores, 8 on a node, for Job/job001/",
    ]
    assert rows[4].startswith("srun relion_refine_mpi --o Job/job001/run --i 'my p.star' ")
    assert rows[5] == "echo done" and len(rows) == 6
    assert shlex.split(rows[4])[1:] == programs(asked, {})[0]


def test_programs_without_mpi_stand_alone_in_a_script():
    bodies = {"fn_in": "run_it012_optimiser.star", "fn_bodies": "bodies.star"}
    asked = request("relion.multibody", nr_mpi="3", **bodies)
    rows = queue_script(TEMPLATE, "M/job001/", asked.options, programs(asked, {})).splitlines()
    assert rows[4].startswith("srun relion_refine_mpi") and rows[5].startswith("relion_flex_")
    model = request("relion.initialmodel", fn_img="p.star")
    rows = queue_script(TEMPLATE, "I/job001/", model.options, programs(model, {})).splitlines()
    assert [row.split()[0] for row in rows[4:]] == ["srun", "rm", "srun", "touch", "echo"]


def test_a_count_of_nothing_is_refused():
    asked = request("relion.extract", star_mics="m.star", coords_suffix="c.star", min_dedicated="0")
    with pytest.raises(SchemeError, match="option 'min_dedicated': '0' is not a count"):
        queue_script(TEMPLATE, asked.process, asked.options, [])
    assert not is_queued(asked)
