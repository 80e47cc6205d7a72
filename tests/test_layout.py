"""The house: who may import whom, what is public, how long things are; and the snippets of all pages run."""

import ast
import io
import re
import tokenize
from importlib import import_module
from pathlib import Path

import pytest

import style_adapter

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "style_adapter"
ROOF = 10
FLOORS = {
    **dict.fromkeys(["_peft", "bars", "columns", "disk", "functional", "seeds"], 0),
    **dict.fromkeys(
        ["adversary", "config", "corruption", "data", "estimators", "losses", "metrics", "piles", "replay", "style"], 1
    ),
    **dict.fromkeys(["arguments", "layers", "presets", "sampling", "teacher"], 2),
    **dict.fromkeys(["model", "recipe"], 3),
    **dict.fromkeys(["card", "export", "fluency", "game", "loras", "inference", "planning", "plots"], 4),
    **dict.fromkeys(["evaluation", "files", "hub", "self_training", "tasks"], 5),
    **dict.fromkeys(["trainer"], 6),
    **dict.fromkeys(["stages"], 7),
    **dict.fromkeys(["app", "server", "training"], 8),
    **dict.fromkeys(["cli"], 9),
    **dict.fromkeys(["__init__", "__main__"], ROOF),
}
VAGUE = {"base", "common", "core", "helper", "helpers", "misc", "shared", "stuff", "tools", "util", "utils"}
MAX_FILE, MAX_FUNCTION = 300, 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module:
    """One file: its dotted name inside the package, its source and its tree."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source, self.tree = name, source, ast.parse(source)
        self.package = name.removesuffix(".__init__") if name.endswith("__init__") else name.rpartition(".")[0]

    def imports(self) -> list[tuple[str, str]]:
        """(module, name) of each import, also inside functions; modules of this package begin with a dot."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = "." + self._absolute(node) if node.level else node.module or ""
                found += [(base, alias.name) for alias in node.names]
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        """The dotted name inside the package that a relative import means; `__init__` for the package itself."""
        parents = [] if self.name == "__init__" else self.package.split(".") if self.package else []
        parents = parents[: len(parents) - (node.level - 1)]
        return ".".join([*parents, *filter(None, [node.module])]) or "__init__"

    def functions(self) -> list[Function]:
        """Every function and method."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


def modules() -> dict[str, Module]:
    """All modules of the package by dotted name."""
    paths = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    return {name: Module(name, path.read_text("utf-8")) for name, path in zip(names, paths, strict=True)}


MODULES = modules()
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


# Imports


def top(name: str) -> str:
    """The part of the house that a module belongs to: a package of several files is one part."""
    return name.partition(".")[0]


def inner_imports(module: Module) -> list[str]:
    """The package's own modules that it imports."""
    return [name[1:] for name, _ in module.imports() if name.startswith(".")]


def bad_floors(module: Module) -> list[str]:
    """Imports that do not lead to a lower floor; parts of one package share theirs."""
    here = FLOORS[top(module.name)]
    return [name for name in inner_imports(module) if top(name) != top(module.name) and FLOORS[top(name)] >= here]


def absolute_imports(module: Module) -> list[str]:
    """Imports that name this package."""
    return [name for name, _ in module.imports() if name.split(".")[0] == "style_adapter"]


def private_peft_names(module: Module) -> list[str]:
    """Underscored names of PEFT that it imports, or reads from a module of PEFT."""
    found = [name for base, name in module.imports() if base.split(".")[0] == "peft" and name.startswith("_")]
    found += [base for base, _ in module.imports() if base.startswith("peft.") and "._" in base]
    read = [ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]
    return found + [name for name in read if re.match(r"peft\..*(?<=\.)_(?!_)", name)]


def cycles(found: dict[str, list[str]]) -> list[str]:
    """Modules that reach themselves by following imports."""

    def reached(start: str) -> set[str]:
        seen, stack = set(), [start]
        while stack:
            fresh = set(found.get(stack.pop(), [])) - seen
            seen, stack = seen | fresh, [*stack, *fresh]
        return seen

    return [name for name in found if name in reached(name)]


@each_module
def test_a_module_has_a_floor_and_imports_from_lower_ones_only(module):
    assert top(module.name) in FLOORS, "give the new module a floor"
    assert not bad_floors(module)


@each_module
def test_imports_inside_the_package_are_relative(module):
    assert not absolute_imports(module)


def test_no_imports_run_in_a_circle():
    files = {name.removesuffix(".__init__"): inner_imports(module) for name, module in MODULES.items()}
    assert not cycles(files)


@each_module
def test_private_names_of_peft_are_in_one_file(module):
    if module.name != "_peft":
        assert not private_peft_names(module)


def test_the_checks_of_imports_find_what_they_look_for():
    lazy = Module("losses", "def f():\n    from .trainer import StyleTrainer\n    from .functional import IGNORED")
    assert bad_floors(lazy) == ["trainer"]
    assert bad_floors(Module("losses", "from .config import StyleAdapterConfig")) == ["config"]
    assert bad_floors(Module("losses", "from . import StyleBank")) == ["__init__"]
    assert bad_floors(Module("style.bank", "from ..losses import x\nfrom .mixture import y")) == ["losses"]
    assert bad_floors(Module("style.__init__", "from .bank import x\nfrom ..functional import y")) == []
    assert inner_imports(Module("style.__init__", "from .bank import x\nfrom ..functional import y")) == [
        "style.bank",
        "functional",
    ]
    assert absolute_imports(Module("losses", "import style_adapter.style")) == ["style_adapter.style"]
    private = (
        "import peft\nfrom peft.tuners.tuners_utils import _f, g\nfrom peft._x import h\npeft.utils._y(peft.utils.z)"
    )
    assert private_peft_names(Module("losses", private)) == ["_f", "peft._x", "peft.utils._y"]
    assert private_peft_names(MODULES["_peft"])
    assert cycles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == ["a", "b", "c"]


# Names


def test_all_names_the_public_ones_and_each_has_a_docstring():
    imports = [(base, name) for base, name in MODULES["__init__"].imports() if base.startswith(".")]
    public = {name for base, name in imports if not base.startswith("._")}
    assert set(style_adapter.__all__) == public
    assert len(style_adapter.__all__) == len(public)
    for name in public:
        assert (getattr(style_adapter, name).__doc__ or "").strip(), f"{name} needs a docstring"


@pytest.mark.parametrize("module", [m for m in MODULES.values() if "__all__" in m.source], ids=lambda m: m.name)
def test_all_names_what_is_there(module):
    loaded = import_module(f"style_adapter.{module.name}".removesuffix(".__init__"))
    assert all(hasattr(loaded, name) for name in loaded.__all__)
    assert len(set(loaded.__all__)) == len(loaded.__all__)


@each_module
def test_no_module_has_a_vague_name(module):
    assert not VAGUE & {part.strip("_") for part in module.name.split(".")}


@each_module
def test_module_and_each_public_part_have_a_docstring(module):
    assert ast.get_docstring(module.tree)
    owners = [module.tree, *(n for n in module.tree.body if isinstance(n, ast.ClassDef) and n.name[0] != "_")]
    parts = [n for owner in owners for n in owner.body if isinstance(n, (ast.ClassDef, Function))]
    assert not [part.name for part in parts if part.name[0] != "_" and not ast.get_docstring(part)]


# Sizes


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code: neither blank nor comment nor docstring."""
    tree, lines = ast.parse(source), set()
    passive = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in passive:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, Function)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def long_functions(module: Module, limit: int = MAX_FUNCTION) -> dict[str, int]:
    """Functions of more code lines than the limit."""
    code = code_lines(module.source)
    sizes = {f.name: len(code & set(range(f.lineno, f.end_lineno + 1))) for f in module.functions()}
    return {name: size for name, size in sizes.items() if size > limit}


@each_module
def test_files_and_functions_stay_short(module):
    assert len(module.source.splitlines()) <= MAX_FILE
    assert not long_functions(module)


def test_the_measure_counts_code_alone():
    source = 'def f(x):\n    """Doc\n\n    more."""\n    # why\n\n    y = (x +\n         1)\n    return y  # note\n'
    assert code_lines(source) == {1, 7, 8, 9}
    assert long_functions(Module("losses", source), limit=3) == {"f": 4}
    assert not long_functions(Module("losses", source), limit=4)


# Snippets


def snippets(text: str) -> list[str]:
    """The ```python blocks of a text, without those that a line `<!-- no-run -->` stands before."""
    blocks = re.finditer(r"(^<!-- no-run -->\n)?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block[2] for block in blocks if not block[1]]


def test_snippets_are_found_unless_marked():
    text = (
        "a\n```python\nx = 1\n```\n<!-- no-run -->\n```python\n1 / 0\n```\n```bash\nls\n```\n```python\nassert x\n```\n"
    )
    assert snippets(text) == ["x = 1\n", "assert x\n"]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_snippets_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, snippet in enumerate(snippets(page.read_text("utf-8")), 1):
        exec(compile(snippet, f"{page.name}, snippet {number}", "exec"), namespace)
