"""The page of an evaluation: one HTML file with its figures and tables. Source: 9.6."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from algorithms.ranker.learning.figures import picture

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1250px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0;font-size:13px}td,th{padding:2px 9px;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{width:100%}
.no{color:#b3261e;font-weight:600}.yes{color:#2c7a3f}"""
_SUMMARY = (
    ("mse", "MSE"), ("variance", "variance of the target"), ("r2", "R2"),
    ("rho", "Spearman's rho, mean over jobs"),
    ("fpr", "FPR at the default threshold"), ("fnr", "FNR at the default threshold"),
    ("worst_fpr", "FPR of the worst job"), ("worst_fnr", "FNR of the worst job"),
    ("jobs_within", "share of jobs with both at most 0.25"),
    ("oracle_fpr", "FPR at the best threshold of each job (looks at the answer)"),
    ("oracle_fnr", "FNR at the best threshold of each job (looks at the answer)"),
    ("oracle_jobs_within", "share of jobs with both at most 0.25, best threshold"),
    ("asked", "share of particles in classes a person is asked about"),
    ("asked_classes", "share of classes a person is asked about"),
    ("outside_fpr", "FPR of what is kept without asking"),
    ("outside_fnr", "FNR of what is dropped without asking"),
    ("purity", "purity: good particles of those kept"),
    ("yield", "yield: good particles that are kept"),
    ("kept_without_reference", "share kept in jobs without any good class"),
    ("jobs", "jobs"), ("judged", "of these with good classes"),
    ("rare_classes", "good classes of rare views"), ("rare_lost", "of these lost"),
)  # fmt: skip
_JOB = (
    "job", "classes", "job_score", "mse", "variance", "rho", "reference", "kept", "fpr", "fnr",
    "oracle_threshold", "oracle_fpr", "oracle_fnr", "asked", "outside_fpr", "outside_fnr", "purity",
    "yield",
)  # fmt: skip


def page(result: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the page and its figures, HTML and PNG.

    Parameters
    ----------
    result
        What `judging.judged` gives.
    training
        What `campaign.run` gives.
    """
    image = picture(result, training)
    embedded = base64.b64encode(image).decode()
    thresholds = result["thresholds"]
    body = [
        "<h1>Class ranker: evaluation</h1>",
        f"<p>Weights {escape(result['weights'][:16])}. Threshold {thresholds['default']:g}; a "
        f"person is asked about scores from {thresholds['drop']:g} up to it. Both "
        "were chosen on validation jobs. FPR: particles kept that the truth does not "
        "select; FNR: particles the truth selects that are not kept; both divided by the "
        "particles that the truth selects (labels 1 and 5; of jobs whose best class is coarser "
        "than 24 A none). Intervals are 95 %, jobs drawn again.</p>",
        f"<p>A hundred classes take {result['cpu_s_per_100']:.2f} s of one core, features "
        "known.</p>",
        "<h2>Bars</h2>",
        bars_table(result["bars"]),
        f'<img alt="figures of the evaluation" src="data:image/png;base64,{embedded}">',
        "<h2>Parts</h2>",
        _summaries(result),
        "<h2>Baselines</h2>",
        _rivals(result),
        "<h2>Grey scale</h2>",
        _table(
            ["part", *(f"averages x {f}" for f in next(iter(result["grey_scale"].values()), {}))],
            [[part, *moves.values()] for part, moves in result["grey_scale"].items()],
        ),
    ]
    for name, part in result["parts"].items():
        body += [f"<h2>Jobs of part {escape(name)}</h2>", _jobs(part), _kinds(part)]
    html = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Class ranker: evaluation'
        f"</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )
    return html, image


def bars_table(bars: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the bars as a table, met or not."""
    words = {True: '<span class="yes">met</span>', False: '<span class="no">not met</span>'}
    rows = [
        [escape(name), bar["value"], bar["limit"], words.get(bar["met"], "not known")]
        for name, bar in bars.items()
    ]
    return _table(["bar", "figure", "at most", ""], rows)


def shown(value: Any) -> str:
    """Return a figure for people, with its interval when it has one."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        if value["low"] is None or math.isnan(value["low"]):
            return shown(value["value"])
        return f"{shown(value['value'])} ({shown(value['low'])} to {shown(value['high'])})"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _summaries(result: Mapping[str, Any]) -> str:
    parts = {"validation": result["validation"]} | {
        name: part["summary"] for name, part in result["parts"].items()
    }
    rows = [
        [title, *(part.get(key, math.nan) for part in parts.values())] for key, title in _SUMMARY
    ]
    return _table(["", *parts], rows)


def _rivals(result: Mapping[str, Any]) -> str:
    parts = list(result["parts"])
    keys = ("mse", "rho", "fpr", "fnr")
    ours = {part: found["summary"] for part, found in result["parts"].items()}
    models = {"this model": ours} | dict(result["baselines"])
    rows = [
        [name, *(model[part].get(key, math.nan) for part in parts for key in keys)]
        for name, model in models.items()
    ]
    return _table(["", *(f"{part}: {key}" for part in parts for key in keys)], rows)


def _jobs(part: Mapping[str, Any]) -> str:
    rows = [[row.get(name, math.nan) for name in _JOB] for row in part["jobs"]]
    return _table([name.replace("_", " ") for name in _JOB], rows)


def _kinds(part: Mapping[str, Any]) -> str:
    names = ("kind", "particles", "kept", "of_selected", "classes", "auc")
    head = ("kind", "particles", "share kept", "of the kept", "classes it rules", "AUC of the good")
    if not part["kinds"]:
        return ""
    return _table(head, [[kind[name] for name in names] for kind in part["kinds"]])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(str(one))}</th>" for one in head)
    lines = ("".join(f"<td>{shown(one)}</td>" for one in row) for row in rows)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
