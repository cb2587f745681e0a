# ruff: noqa: N999 - PyInstaller names hooks so
"""Public names load by the name of their module, and pages are data: the analysis of imports finds neither."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files(
    "infrai_async", include_py_files=True, includes=["**/*.html", "**/*.css", "**/*.js", "**/userns.py"]
)
hiddenimports = collect_submodules("infrai_async", filter=lambda name: not name.startswith("infrai_async._pyinstaller"))
