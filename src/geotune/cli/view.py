"""`geotune view`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from geotune.cli.console import escape, message, out, show_progress

DEFAULT_PORT = 8765


def view(
    folder: Path,
    *others: Path,
    scenes: list[str] | None = None,
    port: int = DEFAULT_PORT,
    browser: bool = True,
) -> None:
    """Show scenes, labels and predictions on a map in the browser.

    The map comes from a server on this machine that no other machine can reach, and loads nothing
    from the network. Ctrl+C ends it.

    Parameters
    ----------
    folder
        A folder that geotune predict wrote, or a run folder, whose scenes are predicted on request.
    others
        Further ones; scenes of the same name are joined, to compare labels and predictions.
    scenes
        A pattern of the images of predictions, if they moved; repeat it for more.
    port
        Port of the server; 0 takes a free one.
    browser
        Open the browser.
    """
    from geotune.utils.progress import DATA_MODULES, loading_libraries

    with show_progress() as on_progress, loading_libraries(on_progress, DATA_MODULES):
        import tempfile
        import webbrowser

        from geotune.view.open_content import open_content
        from geotune.view.server import MapServer

    with tempfile.TemporaryDirectory(
        prefix="geotune-view-", ignore_cleanup_errors=True
    ) as predictions:
        content = open_content([folder, *others], Path(predictions), scenes=scenes or ())
        for note in content.notes:
            message(f"note: {note}")
        with MapServer(content, port) as server:
            out().print(escape(server.address))
            message("Ctrl+C ends it.")
            if browser:
                webbrowser.open(server.opening_address)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                message("ended")
            running = server.pages.job.running
    if running:
        # Native threads may still compute; the interpreter's teardown would crash under them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
