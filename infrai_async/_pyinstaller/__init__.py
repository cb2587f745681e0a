"""What PyInstaller must know to freeze the package, which it asks for by the entry point ``pyinstaller40``."""

from __future__ import annotations

from importlib.resources import files


def get_hook_dirs() -> list[str]:
    """Return where the hooks are (see PyInstaller's documentation, "Providing PyInstaller Hooks with your Package")."""
    return [str(files(__name__))]
