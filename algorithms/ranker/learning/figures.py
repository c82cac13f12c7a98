"""The picture of an evaluation. Source: class-ranker.md section 9.6."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from algorithms.ranker.learning.evaluation import LABELS, OUTCOMES

_COLOURS = {1: "#c0392b", 5: "#b0529e", 2: "#3a8f4d", 3: "#3b6fb6", 6: "#c9a227", 0: "#888888"}
_MEANING = {
    1: "1 good", 5: "5 usable", 2: "2 mixed", 3: "3 recognisable", 4: "4", 6: "6",
    0: "0 not usable",
}  # fmt: skip
_KINDS = {
    "T": "good", "P": "partial", "O": "other protein", "N": "noise", "I": "ice", "E": "edge",
    "C": "off-centre", "B": "neighbour", "A": "aggregate",
}  # fmt: skip

Result = Mapping[str, Any]


def picture(result: Result, training: Result) -> bytes:
    """Return the figures of an evaluation as PNG.

    Parameters
    ----------
    result
        What `judging.judged` gives.
    training
        What `campaign.run` gives.
    """
    figure = Figure(figsize=(17, 15), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 3)
    parts = result["parts"]
    first = parts.get("test") or next(iter(parts.values()))
    _scatter(axes[0, 0], first, result["thresholds"])
    _calibration(axes[0, 1], parts)
    _rates(axes[0, 2], first)
    _rivals(axes[1, 0], result)
    _outcomes(axes[1, 1], first)
    _kinds(axes[1, 2], first)
    _matrix(axes[2, 0], first)
    _history(axes[2, 1], training)
    _curve(axes[2, 2], training)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    return content.getvalue()


def _titled(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _scatter(axes: Axes, part: Result, thresholds: Result) -> None:
    y, score, label = (np.array(part["scatter"][name]) for name in ("y", "score", "label"))
    for one, colour in _COLOURS.items():
        chosen = label == one
        if chosen.any():
            axes.plot(y[chosen], score[chosen], ".", ms=4, color=colour, label=_MEANING[one])
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    axes.axhline(thresholds["default"], color="k", lw=1)
    axes.axhspan(thresholds["drop"], thresholds["default"], color="0.9", zorder=0)
    axes.legend(fontsize=8, title="label by truth", loc="lower right")
    _titled(
        axes, "Test: score and target (line: threshold, grey: a person is asked)", "target", "score"
    )


def _calibration(axes: Axes, parts: Result) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    for name, part in parts.items():
        bins = part["calibration"]
        if bins:
            axes.errorbar(
                [b["score"] for b in bins],
                [b["truth"] for b in bins],
                yerr=[b["spread"] / np.sqrt(b["classes"]) for b in bins],
                marker="o",
                capsize=2,
                label=f"{name} ({sum(b['classes'] for b in bins)} classes)",
            )
    axes.legend(fontsize=8)
    _titled(axes, "Calibration", "mean score in bin", "mean target in bin")


def _rates(axes: Axes, part: Result) -> None:
    rows = [row for row in part["jobs"] if np.isfinite(row["fpr"])]
    rows.sort(key=lambda row: -max(row["fpr"], row["fnr"]))
    x = np.arange(len(rows))
    wrong, lost = [min(1.0, row["fpr"]) for row in rows], [row["fnr"] for row in rows]
    axes.bar(x - 0.2, wrong, 0.4, label="wrongly kept", color="#c0392b")
    axes.bar(x + 0.2, lost, 0.4, label="lost", color="#3b6fb6")
    best = [max(row["oracle_fpr"], row["oracle_fnr"]) for row in rows]
    axes.plot(x, best, "k_", label="best threshold")
    axes.axhline(0.25, color="0.5", lw=1, ls="--")
    axes.set_xticks(x, [row["job"] for row in rows], rotation=90, fontsize=6)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)
    _titled(axes, "Test: particles, as share of the good ones, per job (cut at 1)", "", "share")


def _rivals(axes: Axes, result: Result) -> None:
    parts = [name for name in ("test", "second") if name in result["parts"]]
    models = {"this model": {p: result["parts"][p]["summary"] for p in parts}} | dict(
        result["baselines"]
    )
    x = np.arange(len(models))
    for place, part in enumerate(parts):
        found = [model[part]["mse"] for model in models.values()]
        values = np.array([one["value"] for one in found])
        low, high = (np.array([one[side] for one in found]) for side in ("low", "high"))
        spread = np.nan_to_num(np.abs(np.stack([values - low, high - values])))
        axes.bar(x + 0.4 * place - 0.2, values, 0.38, yerr=spread, capsize=2, label=part)
    axes.axhline(0.02, color="0.5", lw=1, ls="--")
    axes.set_xticks(x, list(models), rotation=30, ha="right", fontsize=8)
    axes.legend(fontsize=8)
    _titled(axes, "Mean squared error, 95 % interval over jobs", "", "MSE")


def _outcomes(axes: Axes, part: Result) -> None:
    kept = [i for i, n in enumerate(part["label_counts"]) if n]
    matrix = np.array(part["outcomes"])[kept]
    names = [f"{_MEANING[LABELS[i]]} ({part['label_counts'][i]})" for i in kept]
    _shown(axes, matrix, names, list(OUTCOMES))
    _titled(axes, "Test: what becomes of classes of each label", "", "")


def _matrix(axes: Axes, part: Result) -> None:
    matrix = np.array(part["confusion"])
    n = len(matrix)
    names = [f"{i / n:g} to {(i + 1) / n:g}" for i in range(n)]
    _shown(axes, matrix, names, names)
    _titled(axes, "Test: confusion, rows sum to 1", "score", "target")


def _shown(axes: Axes, matrix: np.ndarray, rows: list[str], columns: list[str]) -> None:
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if value > 0.6 else "k")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)


def _kinds(axes: Axes, part: Result) -> None:
    kinds = part["kinds"]
    x = np.arange(len(kinds))
    axes.bar(x - 0.2, [k["kept"] for k in kinds], 0.4, label="share of the kind that is kept")
    axes.bar(x + 0.2, [k["of_selected"] for k in kinds], 0.4, label="share of the kept particles")
    axes.set_xticks(x, [_KINDS[k["kind"]] for k in kinds], rotation=30, ha="right", fontsize=8)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8)
    _titled(axes, "Test: particles by what they truly are", "", "share")


def _history(axes: Axes, training: Result) -> None:
    history = training["history"]
    epochs = range(1, len(history) + 1)
    for name in ("train", "validation"):
        axes.plot(epochs, [entry.get(name, np.nan) for entry in history], label=name)
    axes.axvline(training["epoch"], color="0.7", lw=1)
    axes.set_ylim(0, 4 * min(entry["train"] for entry in history) + 0.02)
    axes.legend(fontsize=8)
    _titled(axes, "Training (train: with dropout and turns; line: epoch taken)", "epoch", "MSE")


def _curve(axes: Axes, training: Result) -> None:
    curve = training.get("curve", [])
    axes.plot([p["jobs"] for p in curve], [p["validation"] for p in curve], "o-")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _titled(axes, "Learning curve", "training jobs", "MSE on validation jobs")
