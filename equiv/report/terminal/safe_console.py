"""A console for texts of others: of cases, libraries and stored results."""

from typing import Any

from rich.console import Console
from rich.text import Text

from equiv.core.printable import printable


class SafeConsole(Console):
    """A console that prints no control characters of texts, and never chooses an exit code."""

    def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
        """Without what a terminal would obey."""
        return super().render_str(printable(text), *arguments, **options)

    def on_broken_pipe(self) -> None:
        """Pass on that nobody reads; rich would exit with 1, which means that a port differs."""
        raise
