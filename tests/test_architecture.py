"""
The shape of the house, held by tests: who may import whom, who may speak to what, and how large a room may grow.

Import directions between packages are import-linter's (pyproject.toml); what it cannot see stands here.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from diagnostics.causes import knowledge
from runbooks.engine.placeholders import SCOPE_KEYS

ROOT = Path(__file__).parents[1]
PRODUCT = ("bot", "diagnostics", "retrieval", "runbooks", "lab")

LONGEST_FILE = 400
LONGEST_TEST_FILE = 600  # tables of cases are long, but flat
LONGEST_FUNCTION = 60
BROAD_EXCEPTS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(file: Path) -> Iterator[str]:
    """Every module that the file names in an import, wherever the import stands."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str, *folders: str) -> set[str]:
    """The files that import this module or something in it."""
    return {
        name(file)
        for file in sources(*folders)
        if any(found == module or found.startswith(f"{module}.") for found in imported(file))
    }


def dotted(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def test_rooms_import_only_in_their_direction() -> None:
    """import-linter's contracts hold: the rooms know neither the application nor each other nor the lab."""
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None

    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_migrations_know_the_tables_and_nothing_else() -> None:
    """A migration must go on meaning what it meant, so it may not use code that changes with the product."""
    known = {module for file in sources("alembic") for module in imported(file) if module.split(".")[0] in PRODUCT}

    assert {module for module in known if not f"{module}.".startswith("bot.store.")} == set()
    assert {name(file) for file in sources("alembic") if set(imported(file)) & known} <= {"alembic/env.py"}


def test_alembic_is_no_package() -> None:
    """With an `__init__.py` here, `import alembic` would find this folder and not the library."""
    assert not list((ROOT / "alembic").rglob("__init__.py"))


def test_only_settings_reads_the_environment() -> None:
    """One reader: so every variable is documented, checked, and can come from a file."""
    readers = {
        name(file)
        for file in sources(*PRODUCT)
        for node in ast.walk(tree(file))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.environb", "os.getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {"environ", "getenv"} & {a.name for a in node.names}
        )
    }

    assert readers - set(MAY_TOUCH_THE_ENVIRONMENT) == {"bot/settings.py"}


MAY_TOUCH_THE_ENVIRONMENT = {
    "diagnostics/changes/git.py": "gives Git the PATH and nothing else of it",
    "lab/demo_processes.py": "starts the product as another process and hands it an environment of its own",
    "retrieval/embedder.py": "tells huggingface_hub, which reads nothing else, to stay offline",
}


def test_only_the_index_knows_faiss() -> None:
    """One place holds what must be known of its threads, its GPU resources and its hostile files."""
    assert importers("faiss", *PRODUCT) == {"retrieval/index.py"}


def test_only_two_files_know_the_workflow_engine_by_its_decorators() -> None:
    """DBOS is a singleton of the process; everywhere else the plain functions beneath can be called and tested."""
    decorated = {
        name(file)
        for file in sources("bot")
        for node in ast.walk(tree(file))
        if isinstance(node, Function | ast.ClassDef)
        and any(dotted(decorator).startswith("DBOS.") for decorator in node.decorator_list)
    }

    assert decorated == {"bot/respond.py", "bot/remediate.py"}
    assert importers("dbos", "diagnostics", "retrieval", "runbooks", "lab") == set()


def test_only_the_store_speaks_sql() -> None:
    """Facts are named in bot/store; nobody else knows tables. Catching a database's errors is no SQL."""
    outside = {
        name(file)
        for file in sources("bot")
        if not name(file).startswith("bot/store/")
        and any(
            module.split(".")[0] == "sqlalchemy" and not f"{module}.".startswith("sqlalchemy.exc.")
            for module in imported(file)
        )
    }

    assert outside - set(MAY_KNOW_SQLALCHEMY) == set()


MAY_KNOW_SQLALCHEMY = {"bot/engine.py": "hands the store's engine to the workflow engine, by its type"}


def test_diagnostics_cannot_change_anything() -> None:
    """What diagnoses sends no request that writes: only GET, and POST to Prometheus' query endpoints."""
    writing = {"put", "patch", "delete"}
    calls = {
        f"{name(file)}:{node.lineno}"
        for file in sources("diagnostics")
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in writing
        and "client" in ast.unparse(node.func.value).lower()
    }

    assert calls == set()


def test_broad_excepts_are_few() -> None:
    """Each can hide a lie about the system; all there are stand at an outer boundary, where a loop must go on."""
    broad = [
        f"{name(file)}:{node.lineno}"
        for file in sources(*PRODUCT)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]

    assert len(broad) <= BROAD_EXCEPTS, broad


def is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    if caught is None:
        return True
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(ast.unparse(kind) in {"Exception", "BaseException", "BaseExceptionGroup"} for kind in kinds)


def test_a_broad_except_is_recognised() -> None:
    """The count above would be worth nothing if it overlooked a form."""
    forms = ["except Exception:", "except:", "except (ValueError, Exception) as e:", "except BaseException:"]
    found = [ast.parse(f"try:\n    pass\n{form}\n    pass").body[0] for form in forms]

    assert [is_broad(each.handlers[0]) for each in found if isinstance(each, ast.Try)] == [True] * 4


def test_files_stay_readable() -> None:
    """A file is read from top to bottom in one sitting."""
    product = {name(file): count for file in sources(*PRODUCT, "alembic") if (count := lines(file)) > LONGEST_FILE}
    tests = {name(file): count for file in sources("tests") if (count := lines(file)) > LONGEST_TEST_FILE}

    assert product | tests == {}


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_functions_fit_on_a_screen() -> None:
    """Nothing is longer than a screen, and nine in ten are half of that."""
    sizes = {
        f"{name(file)}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for file in sources(*PRODUCT)
        for node in ast.walk(tree(file))
        if isinstance(node, Function)
    }

    assert {function: size for function, size in sizes.items() if size > LONGEST_FUNCTION} == {}
    assert sum(size <= 30 for size in sizes.values()) >= 0.9 * len(sizes)


@pytest.mark.parametrize("word", ["utils", "common", "manager", "helpers", "misc"])
def test_files_are_named_for_what_they_hold(word: str) -> None:
    """A drawer with such a label takes everything."""
    assert [name(file) for file in sources(*PRODUCT, "tests") if word in file.stem.split("_")] == []


def test_every_file_says_what_it_is_for() -> None:
    """The first sentence of a file is its purpose."""
    silent = [
        name(file)
        for file in sources(*PRODUCT, "alembic", "tests")
        if lines(file) and not ast.get_docstring(tree(file))
    ]

    assert silent == []


def test_every_test_states_a_behaviour() -> None:
    """The docstring is what a reader of a failure sees first."""
    silent = [
        f"{name(file)}:{node.name}"
        for file in sources("tests")
        for node in ast.walk(tree(file))
        if isinstance(node, Function) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_runbooks_name_only_what_exists() -> None:
    """A runbook names checks, causes and actions of other rooms, and each of them is there."""
    from bot.library import faults

    count, problems = faults()

    assert count >= 6
    assert [str(problem) for problem in problems] == []


def test_a_runbook_may_name_every_dimension_of_a_scope() -> None:
    """`{scope.X}` exists for exactly the dimensions in which the catalogue's causes act; "fleet" names no value."""
    dimensions = {cause.scope for cause in knowledge.load().causes.values()}

    assert set(SCOPE_KEYS) == dimensions - {"fleet"}


def test_every_package_is_in_the_wheel() -> None:
    """Packages are listed by hand in pyproject.toml; one that is forgotten works here and is missing elsewhere."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {
        file.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for file in sources(*PRODUCT)
        if file.name == "__init__.py"
    }

    assert there == {package for package in listed if not package.startswith("bot.migrations")}
    assert {"bot.migrations", "bot.migrations.versions"} <= set(listed)


def test_every_import_is_declared() -> None:
    """A package that only happens to be installed is missing from somebody else's installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        Requirement(line).name.lower().replace("_", "-")
        for line in [
            *project["dependencies"],
            *extras["cpu"],
            *extras["postgres"],
            *extras["kubernetes"],
            *extras["lab"],
        ]
    }
    distributions = packages_distributions()
    ours = {*PRODUCT, *sys.stdlib_module_names}

    undeclared = {
        f"{name(file)}: {module}"
        for file in sources(*PRODUCT)
        for module in {found.split(".")[0] for found in imported(file)} - ours
        if not {each.lower().replace("_", "-") for each in distributions.get(module, [])} & declared
    }

    assert undeclared == set()


def test_nothing_knows_where_it_was_made() -> None:
    """The project stands alone: no path of a build machine in anything that is committed."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("only a Git checkout knows what is committed: apt-get install git")
    committed = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    marks = ["/wo" + "rk/", "../sha" + "red", "/.lib" + "rary"]

    found = {
        file
        for file in committed
        if file and file != ".ci/run" and (ROOT / file).is_file()
        for mark in marks
        if mark.encode() in (ROOT / file).read_bytes()
    }

    assert found == set()
