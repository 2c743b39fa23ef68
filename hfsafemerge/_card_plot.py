"""The plot of alignment against domain skill, with the interval of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Point:
    """One model: its rates with their 95% intervals, as they stand in scores.json."""

    label: str
    alignment: Mapping[str, Any]
    skill: Mapping[str, Any]


def plot_alignment(panels: Mapping[str, Sequence[Point]], files: Sequence[Path]) -> None:
    """Draw one panel for each benchmark of skill: skill to the right, alignment upwards, so the best corner is top right.

    Args:
        panels: the points by the panel's title.
        files: where to save; the suffix says in which format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    labels = list(dict.fromkeys(point.label for points in panels.values() for point in points))
    markers = "osD^vPX*<>hp"
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for point in points:
            number = labels.index(point.label)
            across, up = (_bar(score) for score in (point.skill, point.alignment))
            axes.errorbar(
                100 * point.skill["value"],
                100 * point.alignment["value"],
                xerr=across,
                yerr=up,
                fmt=markers[number % len(markers)],
                color=f"C{number % 10}",
                markersize=7,
                elinewidth=0.8,
                capsize=2,
                label=point.label,
            )
        axes.set(title=title, xlabel=f"{points[0].skill['metric']} (%)", ylabel="alignment (%)", xlim=(-3, 103), ylim=(-3, 103))
        axes.grid(alpha=0.3)
    handles = {h.get_label(): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]}
    figure.legend(list(handles.values()), [str(label) for label in handles], loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for file in files:
        # No date and no version in the file, so that the same numbers give the same bytes.
        figure.savefig(file, dpi=120, metadata={"Software": None} if file.suffix == ".png" else {"Date": None, "Creator": None})


def _bar(score: Mapping[str, Any]) -> list[list[float]]:
    low, high = score["ci95"]
    return [[100 * (score["value"] - low)], [100 * (high - score["value"])]]


def points_of(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Point]]:
    """The panels of one run: every model on every benchmark of skill, if alignment was measured too."""
    panels: dict[str, list[Point]] = {}
    for model, found in scores.items():
        alignment = next((score for score in found if score["metric"] == "alignment"), None)
        for score in found:
            if alignment is not None and score["metric"] == "accuracy":
                panels.setdefault(score["benchmark"], []).append(Point(model, alignment, score))
    return panels
