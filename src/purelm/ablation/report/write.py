"""All files of a report in the work folder."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from purelm.ablation.report.csv_json import to_csv, to_json
from purelm.ablation.report.latex import to_latex
from purelm.ablation.report.markdown import to_markdown
from purelm.ablation.report.pictures import Curves
from purelm.ablation.table import Table
from purelm.errors import UserError
from purelm.training.run_folder import write_atomically

Configs = Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_report(table: Table, curves: Curves, workdir: str, configs: Configs, *,
                 errors: Mapping[str, Mapping[str, str]] | None = None) -> list[pathlib.Path]:
    """Writes results.json, table.csv, the pictures there is something for, table.md, table.tex and report.html.

    A half-finished table is as good as a finished one: what is missing is shown as missing. A picture of before that
    there is nothing for anymore is deleted, so that the folder holds one report.

    Args:
      table: what was measured.
      curves: row -> seed -> points (step, validation loss).
      workdir: the folder to write to, made where there is none.
      configs: row -> seed -> path -> (value in the base, value in the row), where they differ.
      errors: row -> seed -> why the cell failed, for the page.

    Returns:
      The files written.

    Raises:
      UserError: the folder cannot be made, or a file written.
    """
    from purelm.ablation.report.page import page

    folder = pathlib.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give another folder") from error
    # Numbers first: they are there whatever happens to a picture.
    write_atomically(folder / "results.json", to_json(table))
    write_atomically(folder / "table.csv", to_csv(table))
    pictures = _draw(table, curves, folder)
    write_atomically(folder / "table.md", to_markdown(table, pictures))
    write_atomically(folder / "table.tex", to_latex(table))
    write_atomically(folder / "report.html", page(table, curves, configs, errors=errors))
    names = ("table.md", "table.tex", "table.csv", "results.json", "report.html", *(name for name, _ in pictures))
    return [folder / name for name in names]


def _draw(table: Table, curves: Curves, folder: pathlib.Path) -> list[tuple[str, str]]:
    """(file name, what it shows) of each picture drawn."""
    from purelm.ablation.report.fit_picture import draw_fit
    from purelm.ablation.report.forest import draw_forest
    from purelm.ablation.report.pictures import draw_curves, draw_search

    drawn = []
    for name, what, draw in (
            ("forest.png", "differences to the base, with intervals", lambda path: draw_forest(table, path)),
            ("curves.png", "validation loss over steps", lambda path: draw_curves(table, curves, path)),
            ("search.png", "the search of each row", lambda path: draw_search(table, path)),
            ("fit.png", "the fitted law", lambda path: draw_fit(table, path))):
        if draw(folder / name):
            drawn.append((name, what))
        else:
            (folder / name).unlink(missing_ok=True)
    return drawn
