"""The shell of a walk: runs one Scheme in a project from its current node to its end.

Every transition is written to `scheme.star` before it is acted upon, and every stimulus to the
log before that, so the process can be killed at any moment: the next one goes on in the middle.
Source: schemes.md sections 6, 7 and 19.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct, structs

from schemer import effects, ends, runlog, store, walk
from schemer.actions import SendMail
from schemer.arrivals import Arrivals
from schemer.errors import ProjectError, SchemeError
from schemer.exchange import (
    AwaitInputs,
    Finish,
    Go,
    InputsThere,
    Instruction,
    JobEnded,
    JobMade,
    MakeJob,
    Perform,
    Performed,
    Proceed,
    RunJob,
    Sleep,
    Stimulus,
    Stop,
    Woke,
)
from schemer.faults import crash_point
from schemer.interrupts import Interrupts
from schemer.resolve import fill_options
from schemer.runlog import Entry, RunLog
from schemer.scheme import UNDEFINED, Scheme
from schemer.sheet import Sheet
from schemer.state import Move, set_move
from schemer.workbench import Prepared, Workbench, prepared, read_job
from schemer.world import ProjectWorld

_LOOK_S = 0.1  # how often a sleep looks for aborts, edits and new data
_INPUT_LOOKS, _INPUT_LOOK_S = 5, 10.0  # RELION's patience with a missing input file


class Result(Struct, frozen=True):
    """How a run went: nodes in the order visited, what the Scheme holds now, how it ended."""

    scheme: Scheme
    walk: walk.Walk
    visited: list[str]
    ended: str
    detail: str
    exit_code: int


class Runner:
    """Runs one Scheme.

    Parameters
    ----------
    bench
        Where and how its jobs are done.
    name
        The Scheme's name, `prep`.
    strict
        As RELION, quirks and all.
    report
        Called with every log entry, for a person who looks on.
    """

    def __init__(
        self,
        bench: Workbench,
        name: str,
        *,
        strict: bool = False,
        report: Callable[[Entry], None] = lambda _: None,
    ):
        self.bench, self.project = bench, bench.project
        self.root: Path = bench.project.root
        self.folder = self.root / "Schemes" / name
        self.strict, self._report = strict, report
        self.world = ProjectWorld(self.root)
        self.sheet = Sheet(self.folder, strict=strict)
        self._clock = time.time() - time.monotonic()
        self._detail = ""
        self._warned: set[str] = set()

    def run(self) -> Result:
        """Run the Scheme to its end and return how it went; goes on where a killed run was.

        Raises
        ------
        SchemeError
            The Scheme cannot be loaded, or another process runs it.
        """
        with store.run_lock(self.root, self.folder, strict=self.strict) as killed:
            opened = self.sheet.open(killed=killed)
            self.scheme, self.walk = opened.scheme, opened.walk
            self.run_name, self.serial = opened.run, opened.serial
            self.log = RunLog(self.folder)
            try:
                if opened.ended:
                    # It was killed between its last transition and its exit.
                    return self._result(runlog.visited(self.log.cut(opened.run, opened.serial)))
                for name in (store.ABORT_NOW, *ends.CONTROL_FILES):
                    (self.folder / name).unlink(missing_ok=True)
                self.project.init()
                self.arrivals = Arrivals(self.root, self.scheme, self.world, opened.data)
                self._data = opened.data or self.arrivals.mark(self.walk.state)
                with Interrupts(lambda: store.request_abort(self.root, self.folder)):
                    return self._run(opened.resumed, opened.remark)
            finally:
                self.log.close()

    def _run(self, resumed: bool, remark: str) -> Result:
        entries = self.log.cut(self.run_name, self.serial)
        node = self.walk.state.current_node
        if remark:
            # The walk begins elsewhere than the file says: write that before anything else.
            self._save()
        self._note("Resumed" if resumed else "Began", node, remark)
        instruction: Instruction = (
            walk.resume(self.walk, self.scheme, strict=self.strict) if resumed else Proceed()
        )
        visited = runlog.visited(entries) if resumed else []
        self._visited = visited or [node]
        while not isinstance(instruction, Finish):
            stimulus = self._carry_out(instruction, resumed)
            resumed = False
            instruction = self._answer(stimulus)
        return self._result(self._visited)

    def _result(self, visited: list[str]) -> Result:
        ended = self.walk.state.ended
        code, _ = ends.told(ended, strict=self.strict)
        return Result(self.scheme, self.walk, visited, ended, self._detail, code)

    def now(self) -> float:
        """Return the time in Unix seconds; it never runs backwards while the process lives."""
        return self._clock + time.monotonic()

    # Instructions

    def _carry_out(self, instruction: Instruction, resumed: bool) -> Stimulus:
        try:
            match instruction:
                case Proceed():
                    return self._aborted() or Go(self.now())
                case Perform(effect=effect):
                    crash_point("effect-before")
                    note = effects.perform(effect, self.root)
                    crash_point("effect-after-before-write")
                    return Performed(self.now(), note)
                case Sleep():
                    return self._sleep(instruction)
                case MakeJob(node=node, visit=visit):
                    job = self._prepare(node)
                    self.bench.refuse(node, job)
                    name = f"{self.run_name}.{visit}"
                    return JobMade(self.bench.make(self.scheme.name, node, job, name), self.now())
                case AwaitInputs():
                    return self._await_inputs(instruction)
                case RunJob():
                    return self._run_job(instruction, resumed)
                case Finish():
                    raise AssertionError
        except (SchemeError, ProjectError) as error:
            return Stop("error", self.now(), str(error))

    def _sleep(self, sleep: Sleep) -> Stimulus:
        while True:
            if self._is_abort_asked():
                return Woke(self.now(), "abort")
            now = self.now()
            if now >= sleep.until:
                return Woke(now, "deadline")
            if sleep.data and self.arrivals.came(self.walk.state, now):
                return Woke(now, "data")
            if self._take_over():
                # The wait may be another now: begin it anew; its clock goes on.
                self._fold((("phase", "ready"),))
                return Go(self.now())
            time.sleep(max(0.0, min(_LOOK_S, sleep.until - now)))

    def _await_inputs(self, wait: AwaitInputs) -> Stimulus:
        job = self._prepare(wait.node, continues=wait.continues)
        patience = self.now() + _INPUT_LOOKS * _INPUT_LOOK_S
        told = False
        while missing := self.bench.missing(job):
            if not told:
                self._save()
                self._note("Warning", wait.node, f"waits for {missing}, which does not exist yet")
                told = True
            self._pause(_INPUT_LOOK_S if self.strict else _LOOK_S)
            if self._is_abort_asked():
                return Stop("aborted", self.now(), f"{wait.node} waited for {missing}")
            if self.now() >= patience:
                return Stop("input missing", self.now(), _missing_text(wait.node, missing, job))
            job = self._prepare(wait.node, continues=wait.continues)
        return InputsThere(self.now())

    def _pause(self, seconds: float) -> None:
        until = self.now() + seconds
        while (left := until - self.now()) > 0 and not self._is_abort_asked():
            time.sleep(min(_LOOK_S, left))

    def _run_job(self, run: RunJob, resumed: bool) -> Stimulus:
        job = self._prepare(run.node, continues=run.continues)
        key = f"{self.run_name}.{run.visit}"
        again = run.continues or (resumed and self.walk.state.jobs[run.node].mode == "continue")
        if run.continues:
            self.bench.renew(run.process, job)
        status, detail = self.bench.run(
            run.process, job, key, is_continue=again, look=self._is_abort_asked
        )
        if status != "Succeeded":
            self._detail = f"{run.process}: {detail}"
        return JobEnded(status, self.now(), f"{run.process} {status} {detail}".strip())

    def _prepare(self, node: str, *, continues: bool = False) -> Prepared:
        """Return the job of a node as its job.star and the variables are at this moment."""
        path = self.folder / node / "job.star"
        kind, file, notes = read_job(path, strict=self.strict)
        self._warn(node, notes)
        state = self.walk.state
        filled = fill_options(
            file.options, kind.kinds, self.scheme.name, state, self.world, strict=self.strict
        )
        fresh = [name for name in filled.phantoms if name not in state.phantoms]
        if fresh:
            self._fold(tuple(("phantom", name) for name in fresh))
        file = structs.replace(file, options=filled.options)
        return prepared(kind, file, pending=filled.pending, is_continue=continues)

    # Stimuli, and what is kept of them

    def _answer(self, stimulus: Stimulus) -> Instruction:
        node = self.walk.state.current_node
        try:
            answer = walk.step(self.scheme, self.walk, stimulus, self.world, strict=self.strict)
        except SchemeError as error:
            stimulus = Stop("error", self.now(), str(error))
            answer = walk.step(self.scheme, self.walk, stimulus, self.world)
        if isinstance(stimulus, Stop):
            self._detail = stimulus.detail
        self._fold(answer.moves, type(stimulus).__name__, node, _text_of(stimulus))
        self._warn(node, answer.warnings)
        if isinstance(answer.instruction, (Proceed, Sleep, RunJob, Finish)):
            if any(move[0] == "waited" for move in answer.moves):
                self._data = self.arrivals.mark(self.walk.state)
            if isinstance(answer.instruction, Finish):
                # Before the file says that it ended: a kill in between only repeats the end.
                self._end(answer.instruction.reason)
            self._save()
        return answer.instruction

    def _fold(
        self, moves: tuple[Move, ...], kind: str = "Shell", node: str = "", text: str = ""
    ) -> None:
        """Fold moves into the walk, as one stimulus of the log."""
        crash_point("scheme-before-log")
        for move in moves:
            walk.apply(self.walk, move)
            if move[0] == "at" and move[1] != UNDEFINED:
                self._visited.append(move[1])
        self.serial += 1
        node = node or self.walk.state.current_node
        self._append(Entry(self.run_name, self.serial, self.now(), kind, node, text, moves))

    def _save(self) -> None:
        """Write the walk to `scheme.star`, with what others have changed there meanwhile."""
        crash_point("scheme-after-log-before-write")
        with store.edit_lock(self.folder):
            self._merge()
            self.sheet.save(self.scheme, self.walk, self.run_name, self.serial, self._data)
        crash_point("scheme-after-write")

    def _take_over(self) -> bool:
        """Take over changes from outside at once; return whether there were any."""
        if not self.sheet.is_changed():
            return False
        self._save()
        return True

    def _merge(self) -> None:
        if not self.sheet.is_changed():
            return
        changes = self.sheet.theirs()
        if changes is None:
            self._note(
                "Warning",
                self.walk.state.current_node,
                "scheme.star was changed from outside and cannot be used like that; it is put back",
            )
            return
        state, moves = self.walk.state, []
        for kind, name, value in changes.values:
            moves += [("create", kind, name), set_move(kind, name, value)]
        for name, row in changes.jobs.items():
            moves.append(("row", name, row.current_name, row.mode, "1" if row.has_started else "0"))
        nodes = {*changes.scheme.operators, *changes.scheme.jobs}
        if state.current_node in nodes or changes.node in nodes:
            self.scheme = structs.replace(changes.scheme, current_node=state.current_node)
        if changes.node in nodes and self.walk.phase in ("ready", "sleep"):
            moves.append(("at", changes.node))
        self._fold(tuple(moves), "Edited", state.current_node, changes.text())

    def _note(self, kind: str, node: str, text: str) -> None:
        self._append(Entry(self.run_name, self.serial, self.now(), kind, node, text))

    def _warn(self, node: str, texts: Iterable[str]) -> None:
        """Note each warning once in a run."""
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                self._note("Warning", node, text)

    def _append(self, entry: Entry) -> None:
        self.log.append(entry)
        self._report(entry)

    # Ends

    def _aborted(self) -> Stop | None:
        if self._is_abort_asked():
            return Stop("aborted", self.now(), f"at {self.walk.state.current_node}")
        return None

    def _is_abort_asked(self) -> bool:
        return (self.folder / store.ABORT_NOW).exists()

    def _end(self, reason: str) -> None:
        crash_point("end-before-control-file")
        _, name = ends.told(reason, strict=self.strict)
        (self.folder / name).touch()
        crash_point("end-after-control-file")
        address = self.walk.state.strings.get("email", "")
        if address and reason != "aborted":
            text = "Finished successfully!" if not self._detail else self._detail
            mail = SendMail(address, f"Scheme: {self.scheme.name}", (text,))
            self._note("Mail", self.walk.state.current_node, effects.perform(mail, self.root))


def _text_of(stimulus: Stimulus) -> str:
    match stimulus:
        case Woke(reason=reason):
            return f"the wait ended: {reason}"
        case Performed(note=note):
            return note
        case JobEnded(detail=detail) | Stop(detail=detail):
            return detail
    return ""


def _missing_text(node: str, path: str, job: Prepared) -> str:
    pending = f" (it is named by {job.pending[0]}, which has not run)" if job.pending else ""
    seconds = math.ceil(_INPUT_LOOKS * _INPUT_LOOK_S)
    return (
        f"job {node}: the input {path} does not exist{pending} and did not appear in {seconds} s; "
        "make it, or correct the option in the job's job.star, and run the Scheme again"
    )
