"""The plot of a search: the terms and the fitness of each candidate, and the best fitness so far."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from hfsafemerge.searching import Candidate


def plot_search(candidates: Sequence[Candidate], file: Path) -> None:
    """Draw the candidates that were measured on all data, in the order of their numbers; the file is replaced as a whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    numbers = [candidate.number for candidate in candidates]
    fitness = [candidate.fitness for candidate in candidates]
    for name in candidates[0].terms if candidates else ():
        axes.plot(numbers, [candidate.terms[name].mean for candidate in candidates], ".", markersize=4, alpha=0.6, label=name)
    axes.plot(numbers, fitness, ".", color="black", markersize=4, label="fitness")
    axes.plot(numbers, list(accumulate(fitness, max)), color="black", linewidth=1.2, label="best fitness so far")
    axes.set(xlabel="candidate", ylabel="log-probability (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    part = file.with_name(f"part-{file.name}")
    figure.savefig(part, dpi=120, metadata={"Date": None, "Creator": None})  # so that the same numbers give the same bytes
    part.replace(file)
