"""The text that a verdict belongs to: a case file and the user's own modules that it imports, installed ones apart."""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def digest(path: Path) -> str:
    """A hash of a case file and of every module of the user's own behind it; nothing is imported to find them.

    A module counts where it lies outside of Python's own folders and site-packages, as the code under development does.
    """
    texts: dict[Path, bytes] = {}
    _gather(path.resolve(), texts)
    content = hashlib.sha256()
    for text in sorted(texts.values()):
        content.update(hashlib.sha256(text).digest())
    return content.hexdigest()


def _gather(path: Path, texts: dict[Path, bytes]) -> None:
    if path in texts:
        return
    texts[path] = path.read_bytes()
    try:
        tree = ast.parse(texts[path])
    except (SyntaxError, ValueError):
        return  # who loads it says what is wrong
    for name, level in _imported(tree):
        for file in _files(name, level, path):
            _gather(file, texts)


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every imported name with its dots, inside functions too; of `from a import b`, `a.b` as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from ((f"{base}.{alias.name}".strip("."), node.level) for alias in node.names)


def _files(name: str, level: int, importer: Path) -> Iterator[Path]:
    """The files that an import runs: of every package on the way, and of the module."""
    top, *rest = name.split(".")
    if level:
        folder, rest = importer.parents[level - 1], [top, *rest]
    else:
        root = _own(top)
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


def _own(top: str) -> Path | None:
    """Where a module of the user's own lies; finding a top-level module imports nothing."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    paths = sysconfig.get_paths()
    others = (*(Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")), Path(__file__).parent.parent)
    # Another environment's packages, put on the path by a `.pth` file, are installed too.
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return None if installed or any(path.is_relative_to(other) for other in others) else path
