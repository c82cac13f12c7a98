"""What is said of the exposures that are not settled: each thing once, and again when it changes.

Source: acquisition.md section 8 (5 to 7, 11).
"""

import msgspec

from mdcatch.config import MdcatchConfig
from mdcatch.ledger import State, Status
from mdcatch.pairing import PENDING, Exposure, Usual, judge
from mdcatch.parsers.record import Record
from mdcatch.reading import defects_of
from mdcatch.settle import FileWatch
from mdcatch.shelf import Shelf
from mdcatch.stimuli import Ready, Rejected, Stimulus, Waits

REVIEW_S = 1.0  # between looks at all exposures
_decode = msgspec.msgpack.Decoder(Record).decode


class Reporter:
    """Says where exposures stand.

    Parameters
    ----------
    config
        Values of the site and of the person.
    shelf
        The exposures.
    """

    def __init__(self, config: MdcatchConfig, shelf: Shelf):
        self._config, self._shelf = config, shelf
        self._review_at = float("-inf")

    def report(self, state: State, now: float) -> list[Stimulus]:
        """Say what changed; forget the exposures that are settled."""
        stimuli: list[Stimulus] = []
        shelf = self._shelf
        if now >= self._review_at:  # waits become due without any file changing
            self._review_at = now + REVIEW_S
            shelf.fresh.update(shelf.exposures)
        fresh, shelf.fresh = shelf.fresh, set()
        usual = _usual(state)
        for exposure in filter(None, map(shelf.exposures.get, sorted(fresh))):
            entry = state.exposures.get(exposure.identity)
            if entry is not None and entry.status is Status.SETTLED:
                shelf.settled(exposure)
            else:
                stimuli += self._say(exposure, state, now, usual)
        return sorted(stimuli, key=_acquired)

    def _say(self, exposure: Exposure, state: State, now: float, usual: Usual) -> list[Stimulus]:
        verdict = judge(exposure, now, usual)
        movie, metadata = exposure.movie, exposure.metadata
        is_certain = movie is not None or exposure.section is not None or exposure.vanished
        if not exposure.announced and (verdict == PENDING or not is_certain):
            return []
        told: tuple[object, ...] = verdict
        if verdict.status == "ready" and movie is not None:
            facts = None if metadata is None else metadata.facts
            heir = metadata is None and exposure.session in state.last
            told = ("ready", movie.facts, facts, heir)
        if told == exposure.said:
            return []
        paths = [watch.path for watch in (movie, metadata) if watch is not None]
        stimuli = list(self._shelf.announce(exposure, next(iter(paths), exposure.identity)))
        if verdict.status == "ready" and movie is not None:
            if not self._is_same(movie):
                movie.again(now)
                return stimuli
            stimuli.append(self._ready(exposure, movie, state))
            self._shelf.fresh.add(exposure.identity)  # the answer stands in the next poll's ledger
        elif verdict.code is not None:
            kind = Rejected if verdict.status == "refused" else Waits
            stimuli.append(kind(movie=exposure.identity, code=verdict.code, detail=verdict.detail))
        exposure.said = told
        return stimuli

    def _is_same(self, movie: FileWatch) -> bool:
        """Tell whether a movie is still the file that was tested."""
        place = self._shelf.place(movie.path)
        try:
            return place is not None and place[0].tree.facts(place[1]) == movie.facts
        except OSError:
            return False

    def _ready(self, exposure: Exposure, movie: FileWatch, state: State) -> Ready:
        """Return all that is known of an exposure whose files are complete."""
        shelf, header, facts = self._shelf, movie.result, movie.facts
        metadata = exposure.metadata
        said = Record(format="", kind="") if metadata is None else _decode(metadata.result)
        stated = said.get("gain_reference") or _decode(header.record).get("gain_reference")
        site = self._config.site.microscope(said.get("microscope_id"))
        camera = site and site.camera(said.get("detector_model"), said.get("detector"))
        acquired_at = said.get("acquisition_time") or ""
        gain = shelf.gains.choose(
            movie.path, state.gain_path, stated=stated, camera=camera, acquired_at=acquired_at
        )
        flags = [gain.flag] if gain.flag and gain.flag != "gain_missing" else []
        if shelf.witnesses.get(exposure.identity, header.n_frames) != header.n_frames:
            flags.append("frames_mismatch")
        is_series = metadata is not None and said.kind == "tilt_series"
        return Ready(
            movie=exposure.identity,
            path=movie.path,
            size_bytes=facts.size if facts else 0,
            mtime_ns=facts.mtime_ns if facts else 0,
            header=header,
            metadata_path=None if metadata is None else metadata.path,
            record=None if metadata is None else metadata.result,
            series=metadata.path if metadata is not None and is_series else "",
            section=exposure.section if is_series else None,
            gain_path=gain.path,
            defects_path=defects_of(said.get("defects_file"), movie.path, shelf.defects),
            complete_by=movie.complete_by,
            acquired_at=acquired_at,
            flags=tuple(flags),
        )


def _usual(state: State) -> Usual:
    """Return what the session's movies are like, once there are some."""
    total = sum(state.frames.values())
    if not total:
        return Usual()
    frames = max(state.frames, key=lambda count: state.frames[count])
    return Usual(state.bytes_mean, frames if 2 * state.frames[frames] > total else 0)


def _acquired(stimulus: Stimulus) -> str:
    """Sort key: what becomes ready in one poll is told in the order of its acquisition."""
    return stimulus.acquired_at if isinstance(stimulus, Ready) else ""
