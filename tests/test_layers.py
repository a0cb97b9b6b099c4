"""The import direction: handlers -> service -> storage | db -> model, errors and the other pure modules."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "file_service"
PURE = {"aio", "content_types", "digests", "errors", "model", "names", "zip"}
MAY_IMPORT = {
    "handlers": {"handlers", "service", *PURE},
    "service": {"service", "storage", "db", *PURE},
    "storage": {"storage", *PURE},
    "db": {"db", *PURE},
    "migrations": {"db"},
    "client": {"client", "names"},
    "clients": {"client", "clients", "commands", "names", "storage"},
    "commands": {"client", "names"},
    "import_command": {"client", "commands"},
    "settings": set[str](),
    "app": {"db", "handlers", "service", "settings", "storage", *PURE},
    "checking": {"app", "db", "errors", "service", "settings", "storage"},
    "server": {"app", "handlers", "settings"},
    "workers": {"errors", "server", "settings"},
    "cli": {"checking", "clients", "commands", "db", "errors", "import_command", "settings", "workers"},
    "__main__": {"cli"},
    **dict.fromkeys(PURE, PURE),
}


def imports(path: Path) -> set[str]:
    """The first parts of the package's own modules that the module at `path` imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("file_service.")}
    return found


def place(path: Path) -> str:
    """The layer of the module at `path`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_go_one_way() -> None:
    wrong = {
        str(path.relative_to(PACKAGE)): sorted(backward)
        for path in PACKAGE.rglob("*.py")
        if place(path) != "__init__" and (backward := imports(path) - MAY_IMPORT[place(path)])
    }
    assert wrong == {}


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("from file_service.handlers.keys import FILES\nimport file_service.db.engine\n")
    assert imports(module) == {"handlers", "db"}
