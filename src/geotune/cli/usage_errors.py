"""Messages for commands that are typed incompletely or wrongly."""

from __future__ import annotations

from cyclopts import CycloptsError, MissingArgumentError

from geotune.cli.console import escape


def usage_error(error: CycloptsError) -> str:
    """An error of the command line with the command's usage, as console markup."""
    command = " ".join(["geotune", *(error.command_chain or ())])
    text = str(error).strip()
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        flag = error.argument.name
        name = flag.lstrip("-").upper() if error.argument.field_info.is_positional else flag
        text = (
            f"the value of {error.keyword} is missing." if error.keyword else f"{name} is missing."
        )
        choices = error.argument.get_choices(force=True)
        text += f" Choose from: {', '.join(choices)}." if choices else ""
    return f"[red]error:[/red] {escape(text)} See {escape(command)} --help"
