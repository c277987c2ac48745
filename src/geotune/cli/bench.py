"""`geotune bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from geotune.cli.console import Json, escape, message, out, print_json, print_table


def bench(
    suite: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    table_only: Annotated[bool, Parameter(negative="")] = False,
    only: Annotated[
        tuple[str, ...], Parameter(negative="", consume_multiple=True, show_default=False)
    ] = (),
    as_json: Json = False,
) -> None:
    """Compare methods: run a grid of recipes and report differences, intervals and costs.

    Re-running the command resumes an interrupted suite. It writes rows.jsonl, table.md, table.csv,
    table.tex, figures/, bench.html, and published.md if the suite names published results. Exit
    code 1 if a run failed; its row and the page give the reason.

    Parameters
    ----------
    suite
        The YAML file of the comparison, or a folder with a suite.yaml.
    workers
        Parallel runs; by default as in the suite.
    ray
        Address of a Ray cluster for the runs, such as auto.
    table_only
        Run nothing; compare the finished runs.
    only
        Names of the runs to run, with wildcards, such as "ships/est-*"; by default all. With
        --table-only, those to compare.
    """
    from geotune.bench.run_suite import PAGE
    from geotune.bench.run_suite import bench as bench_suite

    def on_result(run: str, what: str, done: int, total: int) -> None:
        message(f"{done}/{total} {run}: {what}")

    result = bench_suite(
        suite,
        workers=workers,
        ray=ray,
        table_only=table_only,
        only=only,
        on_message=message,
        on_result=on_result,
    )
    if as_json:
        print_json({"folder": str(result.folder), "rows": result.rows})
    else:
        from geotune.bench.comparison_tables import for_terminal, notes
        from geotune.bench.published_tables import for_terminal as published_for_terminal

        options = result.suite.compare
        for table in result.tables:
            print_table(for_terminal(table))
            out().print(f"[dim]{escape(notes(table, options))}[/dim]")
        for published in result.published:
            print_table(published_for_terminal(published))
        out().print(f"page: {escape(str(result.folder / PAGE))}")
    failed = [row for row in result.rows if row["status"] == "failed"]
    if failed:
        run, error = failed[0]["run"], failed[0]["error"]
        message(f"{len(failed)} of {len(result.rows)} runs failed, first {run}: {error}")
        sys.exit(1)
