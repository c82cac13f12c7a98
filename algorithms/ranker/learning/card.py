"""The model card: in the weights' file for programs, as a page for people. Source: 9.5, 9.6."""

from collections.abc import Mapping, Sequence
from typing import Any

from algorithms.ranker.learning.judging import is_met
from algorithms.ranker.learning.page import shown
from algorithms.ranker.trainingset import labels

LICENCE = "CC0-1.0"
_FIGURES = (
    "mse", "variance", "r2", "rho", "fpr", "fnr", "worst_fpr", "worst_fnr", "jobs_within",
    "oracle_fpr", "oracle_fnr", "oracle_jobs_within", "asked", "outside_fpr", "outside_fnr",
    "purity", "yield", "kept_without_reference", "jobs", "judged",
)  # fmt: skip
_LEAST_JOBS = 100  # below it the card warns
_LIMITS = (
    "Learnt from simulated particles only: real averages, above all of samples unlike those "
    "simulated, may be scored wrongly. Averages of particles normalised to a background of mean 0 "
    "and deviation 1, protein bright, from a 2D classification with CTF correction. Not for "
    "helical segments. The target is purity, centring and true resolution, not a person's eye."
)


def card(training: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card that a file of weights carries.

    Parameters
    ----------
    training
        What `campaign.run` gives.
    result
        What `judging.judged` gives.
    """
    met = is_met(result["bars"])
    parts = {name: part["summary"] for name, part in result["parts"].items()}
    return {
        "training_set": training["training_set"],
        "label_rule": _label_rule(training["training_set"]["label_rules"]),
        "splits": training["splits"],
        "recipe": training["recipe"],
        "metrics": {
            "parts": {
                name: {key: part[key] for key in _FIGURES if key in part}
                for name, part in parts.items()
            },
            "bars": result["bars"],
            "curve": training.get("curve", []),
            "baselines": {
                name: {part: found[part]["mse"]["value"] for part in parts if part in found}
                for name, found in result["baselines"].items()
            },
            "grey_scale": result["grey_scale"],
        },
        "thresholds": result["thresholds"],
        "status": "released" if met else "experimental",
        "limits": _few(training["splits"]) + _LIMITS,
        "licence": LICENCE,
    }


def _label_rule(versions: Sequence[str]) -> str:
    """Return the rule in words; of a set labelled by another version only which."""
    if list(versions) == [labels.VERSION]:
        return labels.RULE
    return (
        f"rule {', '.join(versions)}; the present one, in algorithms/ranker/trainingset/labels.py, "
        f"is {labels.VERSION}."
    )


def _few(splits: Mapping[str, Any]) -> str:
    """Return a warning when the training jobs are far fewer than they should be."""
    train = splits["train"]
    if len(train["jobs"]) >= _LEAST_JOBS:
        return ""
    return (
        f"Trained on only {len(train['jobs'])} jobs, {train['classes']} classes, and judged on "
        f"{len(splits.get('test', {}).get('jobs', []))}: it shows that the chain works, and is "
        "not to be relied on. "
    )


def document(made: Mapping[str, Any], digest: str, size: int) -> str:
    """Return the page of a model, Markdown.

    Parameters
    ----------
    made
        The card.
    digest, size
        SHA-256 and bytes of the weights' file.
    """
    metrics, limits = made["metrics"], made["thresholds"]
    sections = {
        "Data": _data(made),
        "Thresholds": [
            f"Classes are kept from {limits['default']:g}. With asking, a person is asked about "
            f"those from {limits['drop']:g} up to it. Both chosen on validation jobs.",
        ],
        "Bars": _bars(metrics["bars"]),
        "Figures": [*_REMARKS, "", *_figures(metrics["parts"])],
        "Baselines, MSE": _baselines(metrics),
        "Learning curve": _curve(metrics["curve"]),
        "Recipe": [", ".join(f"{name} {value}" for name, value in made["recipe"].items()) + "."],
        "Limits": [made["limits"]],
    }
    lines = [
        "# The class ranker's default model",
        "",
        "Written by `coldstream ranker export`. How to make it again: "
        "[train the class ranker](../how-to/ranker-training.md).",
        "",
        f"**Status: {made['status']}.** {_status(metrics['bars'])}",
        "",
        f"Weights: {size} bytes, SHA-256 `{digest}`, licence {made['licence']}.",
    ]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


_REMARKS = (
    "95 % intervals in brackets, jobs drawn again. FPR and FNR are shares of the particles that",
    "the truth selects: labels 1 and 5, but none of jobs whose score is at its floor (best class",
    "coarser than 24 A, all targets at most 0.05). For comparison: the paper gives an MSE of 0.015",
    "with and 0.017 without features. Its labels are people's and differently distributed, and its",
    "0.015 is after training on all classes, validation included.",
)
_WANTED = "200 to 400"
_WORD = {True: "met", False: "**not met**", None: "not known"}


def _status(bars: Mapping[str, Mapping[str, Any]]) -> str:
    if is_met(bars):
        return "All bars of section 9.6 of the specification are met."
    failed = [name for name, bar in bars.items() if bar["met"] is not True]
    return (
        f"Bars not met or not known: {', '.join(failed)}. Automatic selection by this model is off "
        "unless asked for; scores are always written."
    )


def _data(made: Mapping[str, Any]) -> list[str]:
    whole = made["training_set"]
    rows = [
        f"| {part} | {len(found['jobs'])} | {found['classes']} | {len(found['families'])} | "
        f"`{whole['sha256'][part][:16]}` |"
        for part, found in made["splits"].items()
    ]
    return [
        f"{whole['jobs']} jobs, {whole['classes']} classes, {whole['structures']} structures; "
        f"sources: {', '.join(whole['sources'])}. No family of structures is in two of training, "
        f"validation and test. Section 9.2 of the specification asks for {_WANTED} jobs.",
        "",
        f"Labels: {made['label_rule']}",
        "",
        "| part | jobs | classes | families | hash |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _bars(bars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        "| bar | figure | at most | |",
        "|---|---|---|---|",
        *(
            f"| {name} | {shown(bar['value'])} | {shown(bar['limit'])} | {_WORD[bar['met']]} |"
            for name, bar in bars.items()
        ),
    ]


def _curve(points: Sequence[Mapping[str, float]]) -> list[str]:
    if not points:
        return ["Not measured."]
    return [
        "| training jobs | classes | MSE on validation jobs |",
        "|---|---|---|",
        *(f"| {p['jobs']} | {p['classes']} | {p['validation']:.4f} |" for p in points),
    ]


def _figures(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = {
        name.replace("_", " "): [part.get(name) for part in parts.values()] for name in _FIGURES
    }
    return _table(list(parts), rows)


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    parts = list(metrics["parts"])
    models = {
        "this model": {part: metrics["parts"][part]["mse"]["value"] for part in parts}
    } | dict(metrics["baselines"])
    rows = {name: [found.get(part) for part in parts] for name, found in models.items()}
    return _table(parts, rows)


def _table(head: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> list[str]:
    return [
        f"| | {' | '.join(head)} |",
        "|---|" + "---|" * len(head),
        *(
            f"| {name} | {' | '.join(shown(value) for value in values)} |"
            for name, values in rows.items()
        ),
    ]
