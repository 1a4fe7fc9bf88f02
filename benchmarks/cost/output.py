"""Tables in the terminal, and in the document that is kept."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.cost.sheets import Table
from benchmarks.tables import markdown


def show(tables: Sequence[Table]) -> None:
    """Print tables in the terminal."""
    console = Console()
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left", caption=table.note or None)
        for i, head in enumerate(table.heads):
            shown.add_column(head, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def document(title: str, about: str, method: str, tables: Sequence[Table]) -> str:
    """Return the whole result in markdown."""
    parts = [f"# {title}", about, method]
    for table in tables:
        parts.append(markdown(table.title, table.heads, table.rows))
        if table.note:
            parts.append(table.note)
    return "\n\n".join(parts) + "\n"
