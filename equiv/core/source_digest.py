"""A hash of the source code that a verdict holds for: a case file and the user's own modules that it imports."""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def digest_sources(path: Path) -> str:
    """Hash a case file and every module of the user's own that it imports, without importing any of them.

    A module is the user's own if it is outside of Python's own folders and site-packages.
    """
    texts: dict[Path, bytes] = {}
    _collect_sources(path.resolve(), texts)
    content = hashlib.sha256()
    for text in sorted(texts.values()):
        content.update(hashlib.sha256(text).digest())
    return content.hexdigest()


def _collect_sources(path: Path, texts: dict[Path, bytes]) -> None:
    if path in texts:
        return
    texts[path] = path.read_bytes()
    try:
        tree = ast.parse(texts[path])
    except (SyntaxError, ValueError):
        return  # loading the case reports the syntax error
    for name, level in _imported_names(tree):
        for file in _imported_files(name, level, path):
            _collect_sources(file, texts)


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every imported name with its number of leading dots, in functions too; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from ((f"{base}.{alias.name}".strip("."), node.level) for alias in node.names)


def _imported_files(name: str, level: int, importer: Path) -> Iterator[Path]:
    """The files that an import runs: those of every parent package, and of the module."""
    top, *rest = name.split(".")
    if level:
        folder, rest = importer.parents[level - 1], [top, *rest]
    else:
        root = _find_user_module(top)
        if root is None:
            return
        yield root
        if root.name != "__init__.py":
            return
        folder = root.parent
    for part in rest:
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if module.is_file():
            yield module.resolve()
        if package.is_file():
            yield package.resolve()
        folder = folder / part


def _find_user_module(top: str) -> Path | None:
    """The file of a top-level module if it is the user's own; `find_spec` of a top-level name imports nothing."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    paths = sysconfig.get_paths()
    libraries = (
        *(Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")),
        Path(__file__).parent.parent,
    )
    # Packages of another environment that a `.pth` file adds to the path are installed too.
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return None if installed or any(path.is_relative_to(folder) for folder in libraries) else path
