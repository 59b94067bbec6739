"""Measures how the package is built, and writes its files into docs/contributing/architecture.md.

python docs/structure.py                print the measures
python docs/structure.py --repo DIR     print those of another checkout
python docs/structure.py --write        write the list of files into the page
python docs/structure.py --check        fail where the page is out of date
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs", "contributing", "architecture.md")
BEGIN = (
    "<!-- Written by docs/structure.py from the first sentence of each file: change it there, then run `make docs`. -->"
)
END = "<!-- The end of what docs/structure.py writes. -->"


@dataclass(frozen=True)
class Module:
    """One file of the package: its path inside the package, its dotted name, its text and its syntax tree."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def sentence(self) -> str:
        """The first sentence of the docstring, on one line; empty where there is none."""
        found = re.match(r"(.+?[.!?])(?=\s|$)", " ".join((ast.get_docstring(self.tree) or "").split()))
        return found[1] if found else ""


def read_package(repo: Path, package: str) -> list[Module]:
    """Every Python file of ``package`` in ``repo``, in the order of paths."""
    modules = []
    for path in sorted((repo / package).rglob("*.py")):
        inside = path.relative_to(repo / package)
        parts = [package, *inside.with_suffix("").parts]
        text = path.read_text(encoding="utf-8")
        modules.append(Module(inside, ".".join(parts).removesuffix(".__init__"), text, ast.parse(text)))
    return modules


def functions(modules: list[Module]) -> list[tuple[int, str]]:
    """Length in lines and name of each function, the longest first."""
    found = [
        (node.end_lineno - node.lineno + 1, f"{module.path}: {node.name}")
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    return sorted(found, key=lambda each: (-each[0], each[1]))


def untyped(modules: list[Module]) -> int:
    """How often ``Any`` appears in the annotation of an argument or of a result."""
    count = 0
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                annotations = [argument.annotation for argument in arguments if argument] + [node.returns]
                names = [name for each in annotations if each for name in ast.walk(each)]
                count += sum(isinstance(name, ast.Name) and name.id == "Any" for name in names)
    return count


def untyped_names(modules: list[Module]) -> int:
    """How often ``Any`` appears at all: in signatures, fields, variables and aliases."""
    names = [node for module in modules for node in ast.walk(module.tree) if isinstance(node, ast.Name)]
    return sum(name.id == "Any" for name in names)


def repeated_classes(modules: list[Module]) -> dict[str, list[str]]:
    """Class names that stand for more than one class, and the files that define them."""
    where: dict[str, list[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(str(module.path))
    return {name: files for name, files in sorted(where.items()) if len(files) > 1}


def repeated_stems(modules: list[Module]) -> dict[str, list[str]]:
    """File names that occur in more than one folder, and the files."""
    where: dict[str, list[str]] = {}
    for module in modules:
        if not module.path.stem.startswith("__"):
            where.setdefault(module.path.stem, []).append(str(module.path))
    return {stem: files for stem, files in sorted(where.items()) if len(files) > 1}


def imports(module: Module, known: set[str]) -> Iterator[str]:
    """The modules among ``known`` that ``module`` imports, inside functions too, but not those for types alone."""
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(module, node)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                if inner in known or origin in known:
                    yield inner if inner in known else origin


def _origin(module: Module, node: ast.ImportFrom) -> str:
    """The full name of what ``node`` imports from."""
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    here = module.name.split(".")
    here = here[: len(here) - node.level + is_package]
    return ".".join([*here, *([node.module] if node.module else [])])


def circles(modules: list[Module]) -> list[list[str]]:
    """Groups of modules that import one another: the strongly connected parts of the import graph (Tarjan, 1972)."""
    known = {module.name for module in modules}
    graph = {module.name: sorted(set(imports(module, known)) - {module.name}) for module in modules}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        path.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in path:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            start = path.index(name)
            if len(path) - start > 1:
                found.append(sorted(path[start:]))
            del path[start:]

    for name in graph:
        if name not in number:
            visit(name)
    return sorted(found)


def report(modules: list[Module]) -> str:
    """The measures as text."""
    lengths = sorted(((module.lines, str(module.path)) for module in modules if module.lines), reverse=True)
    longest = functions(modules)
    rings, classes, stems = circles(modules), repeated_classes(modules), repeated_stems(modules)
    lines = [
        f"files that hold code               {len(lengths):,}",
        f"lines                              {sum(length for length, _ in lengths):,}",
        f"median file                        {median([length for length, _ in lengths]):,.0f} lines",
        f"longest file                       {lengths[0][0]:,} lines, {lengths[0][1]}",
        f"longest function                   {longest[0][0]:,} lines, {longest[0][1]}",
        f"functions over 50 lines            {sum(length > 50 for length, _ in longest):,} of {len(longest):,}",
        f"`Any` in signatures                {untyped(modules):,}",
        f"`Any` anywhere                     {untyped_names(modules):,}",
        f"files without a first sentence     {sum(not module.sentence for module in modules if module.lines):,}",
        f"import circles                     {len(rings):,}",
        *(f"    {' <-> '.join(ring)}" for ring in rings),
        f"class names with two meanings      {len(classes):,}",
        *(f"    {name}: {', '.join(files)}" for name, files in classes.items()),
        f"file names in two folders          {len(stems):,}",
        *(f"    {stem}: {', '.join(files)}" for stem, files in stems.items()),
    ]
    return "\n".join(lines)


def listing(modules: list[Module], package: str) -> str:
    """A list of files for each folder, in Markdown: what each does, as its docstring says."""
    folders: dict[Path, list[Module]] = {}
    for module in modules:
        if module.lines:
            folders.setdefault(module.path.parent, []).append(module)
    lines = []
    for folder, files in sorted(folders.items()):
        lines += ["", f"### `{(Path(package) / folder).as_posix()}/`", ""]
        lines += [f"- `{file.path.name}`: {file.sentence}" for file in files]
    return "\n".join(lines).strip()


def with_listing(page: str, text: str) -> str:
    """``page`` with ``text`` between the two marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE.as_posix()} has lost its marks:\n{BEGIN}\n{END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(words: list[str]) -> int:
    """Print, write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repo", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--package", default="pretrain_cli", help="the package's folder in it")
    parser.add_argument("--write", action="store_true", help="write the list of files into the page")
    parser.add_argument("--check", action="store_true", help="fail where the page is out of date")
    asked = parser.parse_args(words)
    modules = read_package(asked.repo, asked.package)
    if not (asked.write or asked.check):
        print(report(modules))
        return 0
    page = asked.repo / PAGE
    old = page.read_text(encoding="utf-8")
    new = with_listing(old, listing(modules, asked.package))
    if asked.check and new != old:
        print(f"{PAGE.as_posix()} is out of date: run `make docs`.", file=sys.stderr)
        return 1
    if new != old:
        page.write_text(new, encoding="utf-8")
        print(f"wrote {PAGE.as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
