"""What a notebook shows of results: tables, plots and text. Whatever a name in them holds stays text."""

import importlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, overload

from hfsafemerge.errors import RunError

Row = Mapping[str, Any]
SHOWN = 50  # rows of a table; a search may have thousands


@dataclass(frozen=True, repr=False)
class Plot:
    """A plot: a notebook shows it, `save` writes it to a file."""

    title: str
    png: bytes
    svg: str

    def save(self, file: str | Path) -> Path:
        """Write it to a file; what it returns is the path.

        Args:
            file: ends with .png or .svg.

        Raises:
            RunError: it ends otherwise.
        """
        path = Path(file)
        if path.suffix not in (".png", ".svg"):
            raise RunError(f"A plot can't be saved as {path.name}. End the name with .png or .svg.")
        path.write_bytes(self.png if path.suffix == ".png" else self.svg.encode())
        return path

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"<plot: {self.title}; .save('plot.svg') writes it>"


@dataclass(frozen=True, repr=False)
class Table(Sequence[Row]):
    """A table: a sequence of rows with plain values, which prints itself in words.

    `table[0]["value"]` is a number; what is shown may be rounded, in percent, or another way to arrange the same rows.
    """

    title: str
    rows: tuple[Row, ...]
    """The values, by column."""
    head: tuple[str, ...]
    """The columns as they are shown."""
    cells: tuple[tuple[str, ...], ...]
    """The rows as they are shown."""
    notes: tuple[str, ...] = ()
    """Sentences below it."""
    draw: Callable[[], Plot] | None = None
    """Draws what a notebook shows below it."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, at: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[at]

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame. Raises RunError where pandas is not installed."""
        try:
            return importlib.import_module("pandas").DataFrame(list(self.rows))
        except ModuleNotFoundError as error:
            raise RunError("pandas is not installed. Install it with `pip install pandas`, or take .rows as they are.") from error

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.cells, strict=True)]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (self.head, *self.cells)]
        return "\n".join([self.title, *("  ".join(row).rstrip() for row in padded), *self.notes])

    def _repr_html_(self) -> str:
        head = _html_row("th", self.head)
        body = "".join(_html_row("td", row) for row in self.cells)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        plot = "" if self.draw is None else _html_plot(self.draw())
        return f"<table><caption>{escape(self.title)}</caption><thead>{head}</thead><tbody>{body}</tbody></table>{notes}{plot}"


class Markdown(str):
    """Text in Markdown: a notebook renders it, without the front matter; `print` shows it as it is."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        _, fence, rest = self.removeprefix("---\n").partition("\n---\n")
        return rest if self.startswith("---\n") and fence else str(self)


def plain_table(title: str, rows: Sequence[Row], notes: Sequence[str] = (), draw: Callable[[], Plot] | None = None) -> Table:
    """A table that is shown as its rows are, the first fifty of them: numbers to four significant places, nothing for None."""
    head = tuple(dict.fromkeys(column for row in rows for column in row))
    cells = tuple(tuple(in_cell(row.get(column)) for column in head) for row in rows[:SHOWN])
    cut = [f"The first {SHOWN} of {len(rows)} rows; .rows has all."] if len(rows) > SHOWN else []
    return Table(title, tuple(rows), head, cells, (*notes, *cut), draw)


def in_cell(value: Any) -> str:
    """A value as it stands in a cell."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f'<{tag} style="text-align: left">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"


def _html_plot(plot: Plot) -> str:
    return f'<img alt="{escape(plot.title)}" src="data:image/png;base64,{b64encode(plot.png).decode()}">'
