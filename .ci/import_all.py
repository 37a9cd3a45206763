"""Imports every module from where it is installed: exit 1 where one, or a template, is missing.

Run:  python .ci/import_all.py PROJECT SITE     the sources' folder, and where they were installed
"""

import importlib
import pathlib
import sys


def main(project: str, site: str) -> None:
    source = pathlib.Path(project)
    tops = [path.parent for path in source.glob("*/__init__.py") if path.parent.name != "tests"]
    files = [source / "main.py", *(file for top in tops for file in sorted(top.rglob("*.py")))]
    for file in files:
        parts = file.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found = pathlib.Path(importlib.import_module(name).__file__)
        assert found.is_relative_to(site), f"{name} was imported from {found}"
    print(f"{len(files)} modules are there")
    for path in [path for top in tops for path in top.rglob("*.jinja")]:
        assert (pathlib.Path(site) / path.relative_to(source)).is_file(), f"{path} was not packed"


if __name__ == "__main__":
    main(*sys.argv[1:])
