"""The host: space, limits, inotify, programs, GPUs, the cluster, the clock."""

import ctypes
import os
import resource
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from services.doctor.finding import Finding, Look, existing

# Below the first share or amount new work should wait, below the second journals are in danger
# (reliability.md section 2.9).
_LOW_SHARE, _LOW_BYTES, _FULL_SHARE = 0.05, 20 * 2**30, 0.01
# A temporary folder holds single files, never a session.
_TEMP_BYTES = 2**30
# Every folder of a session takes a watch; 8192 was the kernel's default for twenty years.
_FEW_WATCHES, _FEW_INSTANCES = 8192, 32
# What the services and one worker per core keep open and running, with room.
_FILES_LOW, _FILES_LEAST, _PROCESSES = 4096, 1024, 512
_FILE_BYTES, _MEMORY_BYTES = 2**36, 2**33
_TIME_ERROR = 5  # adjtimex's answer while nothing keeps the clock right


def space(look: Look) -> Iterator[Finding]:
    """Yield file systems that are, or will soon be, full: of bytes, or of files."""
    places = {"projects": Path(look.site.defaults.projects)}
    if look.project is not None:
        places = {"project": look.project.absolute()}
    for subject, place in places.items():
        if str(place) in look.asleep:
            continue
        yield from _space(subject, existing(place), _LOW_BYTES)
    yield from _temporary()


def _space(subject: str, place: Path, low_bytes: int) -> Iterator[Finding]:
    status = os.statvfs(place)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    share = free / total if total else 1.0
    said = f"{place}: {free / 2**30:.1f} GiB free, {100 * share:.0f} %"
    if share < _FULL_SHARE:
        yield Finding.of("error", "disk", subject, f"{said}: full", "free space now")
    elif share < _LOW_SHARE or free < low_bytes:
        yield Finding.of("warning", "disk", subject, said, "free space before the next session")
    else:
        yield Finding.of("ok", "disk", subject, said)
    if not status.f_files:
        return  # file systems without a limit on files say 0
    left = status.f_favail / status.f_files
    if left < _LOW_SHARE:
        said = f"{place}: {status.f_favail} more files fit, {100 * left:.1f} %"
        level = "error" if left < _FULL_SHARE else "warning"
        yield Finding.of(level, "inodes", subject, said, "remove files, or make more inodes")
    else:
        yield Finding.of("ok", "inodes", subject, f"{place}: {100 * left:.0f} % free")


def _temporary() -> Iterator[Finding]:
    asked = os.environ.get("TMPDIR")
    folder = Path(asked or tempfile.gettempdir())
    remedy = "set TMPDIR to a folder on a local disk that this account can write to"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        detail = f"{folder} cannot be written to: {error.strerror}"
        yield Finding.of("error", "temp", "TMPDIR", detail, remedy)
        return
    yield from _space("TMPDIR", folder, _TEMP_BYTES)


def limits(look: Look) -> Iterator[Finding]:
    """Yield limits of this account that a session will meet."""
    everything = (
        ("open files", "-n", resource.RLIMIT_NOFILE, _FILES_LOW, _FILES_LEAST),
        ("processes", "-u", resource.RLIMIT_NPROC, _PROCESSES, 64),
        ("file size", "-f", resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES),
        ("memory", "-v", resource.RLIMIT_AS, _MEMORY_BYTES, 2**30),
    )
    for name, option, which, low, least in everything:
        soft, _ = resource.getrlimit(which)
        if soft == resource.RLIM_INFINITY or soft >= low:
            shown = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
            yield Finding.of("ok", "limit", name, shown)
            continue
        level = "error" if soft < least else "warning"
        remedy = f"raise it to {low} or more: ulimit {option}, /etc/security/limits.d"
        yield Finding.of(level, "limit", name, f"is {soft}, wanted {low}", remedy)


def inotify(look: Look) -> Iterator[Finding]:
    """Yield inotify limits that make a watcher fall back to polling."""
    folder = look.proc / "sys" / "fs" / "inotify"
    wanted = (("max_user_watches", _FEW_WATCHES, 524_288), ("max_user_instances", 31, 256))
    for name, few, better in wanted:
        try:
            value = int((folder / name).read_text())
        except (OSError, ValueError):
            continue  # no inotify here: polling finds all the same
        if value > few:
            yield Finding.of("ok", "inotify", name, str(value))
        else:
            remedy = f"sysctl fs.inotify.{name}={better}, and write it into /etc/sysctl.d"
            yield Finding.of("warning", "inotify", name, f"is {value}, an old default", remedy)
    problem = _no_instance()
    if problem:
        remedy = "other programs of this account hold all: sysctl fs.inotify.max_user_instances=256"
        detail = f"none can be had ({problem}): new files are found by polling, later"
        yield Finding.of("warning", "inotify", "instance", detail, remedy)


def _no_instance() -> str:
    """Return why an inotify instance cannot be had; empty if it can, or there is no inotify."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        return ""
    descriptor = library.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return ""


def programs(look: Look) -> Iterator[Finding]:
    """Yield other people's programs that are not there; an error where the defaults need them."""
    site = look.site
    names, defaults, notify = site.programs, site.defaults, site.notify
    needed = {
        "relion": (names.relion, defaults.pipeline == "relion", "pipeline relion"),
        "topaz": (names.topaz, defaults.picker == "topaz", "picker topaz"),
        "cryolo": (names.cryolo, defaults.picker == "cryolo", "picker cryolo"),
        "scipion": (names.scipion, defaults.pipeline == "scipion", "pipeline scipion"),
        "mail": (names.mail, bool(notify.mail), "notify.mail"),
    }
    if notify.command:
        needed["notify.command"] = (notify.command[0], True, "notify.command")
    for subject, (name, is_needed, by) in needed.items():
        found = shutil.which(name)
        if found:
            yield Finding.of("ok", "program", subject, found)
        elif is_needed:
            remedy = f"install it, or give its path as programs.{subject}"
            remedy = "correct the path" if subject == "notify.command" else remedy
            detail = f"{name} is not there, and {by} needs it"
            yield Finding.of("error", "program", subject, detail, remedy)
        else:
            yield Finding.of("ok", "program", subject, f"{name} is not there, and not needed")


def gpus(look: Look) -> Iterator[Finding]:
    """Yield GPUs that the site says are here and that cannot be used."""
    wanted = look.site.cluster.gpus
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of a driver that is too old: told below
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(sorted({torch.cuda.get_device_name(n) for n in range(found)}))
    if found >= wanted:
        detail = f"{found} ({names})" if found else "none: everything runs on the processor"
        yield Finding.of("ok", "gpu", "cluster.gpus", detail)
        return
    driver = (look.proc / "driver" / "nvidia" / "version").exists()
    why = "the driver is there: is it too old, or this torch without CUDA?" if driver else ""
    remedy = why or "install the driver, or set cluster.gpus to 0"
    detail = f"{found} of {wanted} can be used"
    yield Finding.of("error", "gpu", "cluster.gpus", detail, remedy)


def cluster(look: Look) -> Iterator[Finding]:
    """Yield a scheduler that does not answer, and more workers than cores."""
    site = look.site.cluster
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if site.scheduler is not None:
        host, _, port = site.scheduler.partition("://")[2].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=3.0).close()
        except (OSError, ValueError, OverflowError) as error:
            detail = f"{site.scheduler} does not answer: {error}"
            remedy = "start the scheduler, or correct the address"
            yield Finding.of("error", "cluster", "cluster.scheduler", detail, remedy)
        else:
            yield Finding.of("ok", "cluster", "cluster.scheduler", f"{site.scheduler} answers")
    elif site.workers is not None and site.workers > (cores or 1):
        detail = f"is {site.workers}, more than the {cores} cores of this host"
        remedy = "a worker uses one core: set no more than there are"
        yield Finding.of("warning", "cluster", "cluster.workers", detail, remedy)


def clock(look: Look) -> Iterator[Finding]:
    """Yield whether anything keeps the clock right; file times and logs of hosts are compared."""
    state = clock_state()
    if state is None:
        return
    if state == _TIME_ERROR:
        detail, remedy = "is not synchronised with any other", "run chronyd or systemd-timesyncd"
        yield Finding.of("warning", "clock", "time", detail, remedy)
    else:
        yield Finding.of("ok", "clock", "time", "is kept right by NTP")


def clock_state() -> int | None:
    """Return what the kernel says of its clock (`adjtimex`), None where it does not."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "adjtimex"):
        return None
    # A zeroed struct timex changes nothing and is filled in: it has 208 bytes on 64-bit Linux.
    state = library.adjtimex(ctypes.create_string_buffer(512))
    return None if state < 0 else state
