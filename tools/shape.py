"""Measures the shape of the tree: sizes, reaches, names that mean two things, the words of its prose.

usage: python -m tools.shape                     the table, for this tree
       python -m tools.shape --against DIR       beside that of another checkout
       python -m tools.shape --where private     the places behind one row, by a part of its name

Each row has the bound that the project keeps. Ends with 1 if a row of this tree is beyond its bound. The sources are
read, not run: another checkout needs no environment.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent

#: Lines of a module, and of a function, above which it is time to split it by subject.
MODULE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60
#: Paths through a function (McCabe).
COMPLEXITY_MAX: Final = 15

#: Nodes that add a path through a function, as McCabe counts.
BRANCHES: Final = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension)
#: The name of a class that collects the fragments of a message.
ASSEMBLY: Final = re.compile(r"^(?:Partial|\w*Assembl\w*|Unfinished(?!Messages$)\w*)$")
#: Base classes that do not count as a project's class extending another: a contract without code.
CONTRACTS: Final = frozenset({"Protocol", "NamedTuple", "TypedDict", "Enum", "IntEnum", "StrEnum", "Exception"})
#: The base class that users extend, and so do the services of the layers.
SERVICE: Final = "Service"

#: Names of files that each layer may have.
USUAL_FILES: Final = frozenset({"__init__.py", "errors.py", "limits.py", "config.py"})

#: Words of an accent: native technical prose has at most 4 in 1,000, and begins at most 1 sentence in 100 with one.
ACCENT: Final = re.compile(r"\b(?:what|who|whoever|those)\b", re.IGNORECASE)
BEGINNING: Final = re.compile(r"(?:What|Who|Whoever|Those)\b")
SENTENCE: Final = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`*])")


class Module(NamedTuple):
    """One source file."""

    #: Where it is, below ``src/haptera``.
    path: Path
    text: str
    tree: ast.Module
    #: All nodes of the tree: each row looks at them.
    nodes: tuple[ast.AST, ...]

    @property
    def layer(self) -> str:
        """The folder of ``src/haptera`` that it is in; its own name if it is in none."""
        return self.path.parts[0].removesuffix(".py")

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.count("\n")


class Tree:
    """The sources and the prose of one checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        source = root / "src" / "haptera"
        self.modules = [
            Module(
                path.relative_to(source),
                text := path.read_text(encoding="utf-8"),
                tree := ast.parse(text),
                tuple(ast.walk(tree)),
            )
            for path in sorted(source.rglob("*.py"))
        ]
        self.layers = sorted({module.layer for module in self.modules if len(module.path.parts) > 1})

    def of(self, layer: str) -> list[Module]:
        """The modules of a layer."""
        return [module for module in self.modules if module.layer == layer and len(module.path.parts) > 1]


#: The places behind a figure: ``file:line what``, one each.
Places = list[str]


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in module.nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _complexity(function: ast.AST) -> int:
    paths = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            paths += 1
        elif isinstance(node, ast.Match):
            paths += len(node.cases)
    return paths


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its first statement on, the docstring aside."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if documented and len(function.body) > 1 else function.body
    return (function.end_lineno or function.lineno) - body[0].lineno + 1


def large_modules(tree: Tree) -> Places:
    """Modules that are longer than they should be, docstrings aside: those of a public class may be half of it."""
    lines = {f"{each.path}": each.lines - _docstring_lines(each) for each in tree.modules if not _made(each)}
    return [f"{path}: {count}" for path, count in lines.items() if count > MODULE_LINES_MAX]


def _docstring_lines(module: Module) -> int:
    return sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in module.nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _made(module: Module) -> bool:
    return "generated" in module.text[:400].lower()


def large_functions(tree: Tree) -> Places:
    """Functions that are longer, or have more paths, than they should."""
    places = []
    for module in tree.modules:
        for node in _functions(module):
            lines = _code_lines(node)
            paths = _complexity(node)
            if lines > FUNCTION_LINES_MAX or paths > COMPLEXITY_MAX:
                places.append(f"{module.path}:{node.lineno} {node.name}: {lines} lines, {paths} paths")
    return places


def state_writers(tree: Tree) -> Places:
    """Modules of ``connection`` that write the state of a stream or of a half of one.

    The state of a connection as a whole is its own, and is written by its class alone.
    """
    places = []
    for module in tree.of("connection"):
        whole = [node for node in module.tree.body if isinstance(node, ast.ClassDef) and node.name == "Connection"]
        its_own = {node for each in whole for node in ast.walk(each)}
        found = [
            node
            for node in module.nodes
            if node not in its_own
            and isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and node.attr in {"state", "decided", "request_state", "answer_state"}
        ]
        if found:
            places.append(f"{module.path}: {len(found)} times")
    return places


def assemblers(tree: Tree) -> Places:
    """Modules of ``connection`` that begin to put the fragments of a message together."""
    return [
        f"{module.path}"
        for module in tree.of("connection")
        if any(isinstance(node, ast.Call) and ASSEMBLY.search(_name(node.func)) for node in module.nodes)
    ]


def extended_classes(tree: Tree) -> Places:
    """Classes of ``connection`` and ``peer`` that extend another class of their layer; services extend `Service`."""
    places = []
    for layer in ("connection", "peer"):
        modules = tree.of(layer)
        defined = {
            node.name
            for module in modules
            for node in module.nodes
            if isinstance(node, ast.ClassDef) and not _is_contract(node)
        }
        for module in modules:
            for node in module.nodes:
                if isinstance(node, ast.ClassDef):
                    bases = {_name(base) for base in node.bases} & defined - {SERVICE}
                    places += [f"{module.path}:{node.lineno} {node.name}({base})" for base in sorted(bases)]
    return places


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Subscript):
        return _name(node.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_contract(node: ast.ClassDef) -> bool:
    return bool({_name(base) for base in node.bases} & CONTRACTS) or (not node.bases and not node.body)


def private_reaches(tree: Tree) -> Places:
    """Uses, in ``peer``, of another object's private attribute."""
    return [
        f"{module.path}:{node.lineno} {ast.unparse(node)}"
        for module in tree.of("peer")
        for node in module.nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    ]


def private_reaches_per_1000(tree: Tree) -> float:
    """Those uses for 1,000 lines of ``peer``."""
    lines = sum(module.lines for module in tree.of("peer"))
    return 1000 * len(private_reaches(tree)) / lines


def spread_of_rename(tree: Tree) -> Places:
    """Places that name the method ``rename``, as a name, a class or the text of one.

    Modules that rename files do not count, all of storage's among them, nor do generated ones, the dialects, which have
    the commands of other protocols by their own names, and the faces of packages, which repeat each name.
    """
    return [
        f"{module.path}:{getattr(node, 'lineno', 0)} {type(node).__name__}"
        for module in tree.modules
        if not _made(module)
        if module.path.stem not in {"filesystem", "writer", "__init__"}
        and module.layer not in {"storage", "testing", "dialects"}
        for node in module.nodes
        if _names_rename(node)
    ]


def _names_rename(node: ast.AST) -> bool:
    names = {
        ast.Attribute: "attr",
        ast.Name: "id",
        ast.FunctionDef: "name",
        ast.AsyncFunctionDef: "name",
        ast.ClassDef: "name",
        ast.alias: "name",
        ast.Constant: "value",
    }
    name = getattr(node, names.get(type(node), ""), None)
    return isinstance(name, str) and name.strip("_").lower() == "rename"


def files_of_rename(tree: Tree) -> Places:
    """Files among those places."""
    return sorted({place.split(":")[0] for place in spread_of_rename(tree)})


#: A dialect sees of a node the command interface, and the node's part in each of its connections.
DIALECT_FACES: Final = ("haptera.node.commands", "haptera.node.frontend")


def past_faces(tree: Tree) -> Places:
    """Imports of a module inside another layer, past the layer's face; ``python -m haptera`` is the command line."""
    places = []
    for module in tree.modules:
        if module.path.name == "__main__.py":
            continue
        for node in module.nodes:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                if module.layer == "dialects" and node.module in DIALECT_FACES:
                    continue
                parts = node.module.split(".")
                if parts[0] == "haptera" and len(parts) > 2 and parts[1] in tree.layers and parts[1] != module.layer:
                    places.append(f"{module.path}:{node.lineno} {node.module}")
    return places


def doubled_classes(tree: Tree) -> Places:
    """Public class names that stand in two layers; ``sync`` has those of others, because its surface is theirs."""
    layers: dict[str, set[str]] = defaultdict(set)
    for module in (each for each in tree.modules if each.layer != "sync"):
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                layers[node.name].add(f"{module.path}")
    return [
        f"{name}: {', '.join(sorted(paths))}"
        for name, paths in sorted(layers.items())
        if len({path.split("/")[0] for path in paths}) > 1
    ]


def tripled_files(tree: Tree) -> Places:
    """File names that stand in three places or more; two layers may each have a side of one thing, such as items."""
    paths: dict[str, list[str]] = defaultdict(list)
    for module in tree.modules:
        if module.path.name not in USUAL_FILES:
            paths[module.path.name].append(f"{module.path}")
    return [f"{name}: {', '.join(found)}" for name, found in sorted(paths.items()) if len(found) > 2]


def top_names(tree: Tree) -> Places:
    """Names that ``haptera`` exports."""
    face = next(module for module in tree.modules if str(module.path) == "__init__.py")
    for node in face.tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [_name(target) for target in targets] == ["__all__"] and isinstance(node.value, (ast.List, ast.Tuple)):
                return [ast.unparse(name) for name in node.value.elts]
    return []


def _prose(tree: Tree) -> Iterator[tuple[str, str]]:
    """Yield the paragraphs of the prose: where, and the text."""
    for module in tree.modules:
        yield from _docstrings(module)
        yield from _comments(module)
    for path in [*tree.root.glob("*.md"), *(tree.root / "docs").rglob("*.md"), *(tree.root / "spec").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for paragraph in re.split(r"\n\s*\n|\n(?=\s*[-*|] )", text):
            yield str(path.relative_to(tree.root)), paragraph


def _docstrings(module: Module) -> Iterator[tuple[str, str]]:
    for node in module.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for paragraph in re.split(r"\n\s*\n", node.value.value):
                yield f"{module.path}:{node.lineno}", paragraph


def _comments(module: Module) -> Iterator[tuple[str, str]]:
    run: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type != tokenize.COMMENT or token.string.startswith(("# type:", "# noqa", "#!")):
            continue
        line = token.start[0]
        if run and line != last + 1:
            yield f"{module.path}:{last}", " ".join(run)
            run = []
        run.append(token.string.lstrip("#: "))
        last = line
    if run:
        yield f"{module.path}:{last}", " ".join(run)


def _sentences(paragraph: str) -> list[str]:
    text = re.sub(r"\s+", " ", paragraph.replace("| ", ". ").lstrip("-*#> ")).strip()
    return [each for each in SENTENCE.split(text) if len(each.split()) > 2]


def accent_beginnings(tree: Tree) -> Places:
    """Sentences that begin with What, Who, Whoever or Those and are no questions."""
    return [
        f"{where} {sentence[:70]}"
        for where, paragraph in _prose(tree)
        for sentence in _sentences(paragraph)
        if BEGINNING.match(sentence) and not sentence.endswith("?")
    ]


def accent_beginnings_percent(tree: Tree) -> float:
    """Of 100 sentences, those."""
    sentences = sum(len(_sentences(paragraph)) for _, paragraph in _prose(tree))
    return 100 * len(accent_beginnings(tree)) / sentences


def accent_words(tree: Tree) -> Places:
    """Words what, who, whoever and those in the prose, by layer or file."""
    counts: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for where, paragraph in _prose(tree):
        part = where.split("/")[0].split(":")[0]
        counts[part] += len(ACCENT.findall(paragraph))
        words[part] += len(re.findall(r"[A-Za-z']+", paragraph))
    ordered = sorted(counts, key=lambda part: -counts[part] / max(words[part], 1))
    return [f"{part}: {1000 * counts[part] / max(words[part], 1):.1f} ({counts[part]})" for part in ordered]


def accent_per_1000(tree: Tree) -> float:
    """Of 1,000 words, those."""
    texts = [paragraph for _, paragraph in _prose(tree)]
    words = sum(len(re.findall(r"[A-Za-z']+", text)) for text in texts)
    return 1000 * sum(len(ACCENT.findall(text)) for text in texts) / words


class Row(NamedTuple):
    """One measure: its name, how it is had, and the most that it may be."""

    name: str
    value: Callable[[Tree], float | Places]
    bound: float
    places: Callable[[Tree], Places] | None = None


ROWS: Final = (
    Row("modules over 400 lines", large_modules, 0),
    Row("functions over 60 lines or 15 paths", large_functions, 0),
    Row("modules that write a stream's state", state_writers, 1),
    Row("modules that put fragments together", assemblers, 1),
    Row("connection and peer: classes that extend another", extended_classes, 0),
    Row("peer: private reaches per 1,000 lines", private_reaches_per_1000, 3, private_reaches),
    Row("files that name the method rename", files_of_rename, 5),
    Row("places that name the method rename", spread_of_rename, 8),
    Row("imports past a layer's face", past_faces, 0),
    Row("class names that stand in two layers", doubled_classes, 0),
    Row("file names that stand in three places", tripled_files, 0),
    Row("names at the top of haptera", top_names, 40),
    Row("% of sentences that begin with what, who, those", accent_beginnings_percent, 1, accent_beginnings),
    Row("what, who, those in 1,000 words", accent_per_1000, 4, accent_words),
)


def measure(row: Row, tree: Tree) -> float:
    """Return the figure of a row."""
    found = row.value(tree)
    return float(len(found)) if isinstance(found, list) else found


def show(figure: float) -> str:
    """Return a figure as it is printed."""
    return f"{figure:.0f}" if figure == int(figure) else f"{figure:.1f}"


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description="Measures the shape of the tree.")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, to be shown beside this one")
    parser.add_argument("--where", metavar="TEXT", help="show the places behind the rows whose names hold this text")
    options = parser.parse_args(argv)
    trees = [Tree(options.against)] if options.against else []
    trees.append(Tree(ROOT))
    beyond = 0
    for row in ROWS:
        if options.where and options.where not in row.name:
            continue
        figures = [measure(row, tree) for tree in trees]
        mark = "" if figures[-1] <= row.bound else "  <- beyond"
        beyond += bool(mark)
        columns = "".join(f"{show(figure):>8}" for figure in figures)
        sys.stdout.write(f"{row.name:<50}{columns}   at most {show(row.bound):>3}{mark}\n")
        if options.where:
            found = (row.places or row.value)(trees[-1])
            sys.stdout.writelines(f"    {place}\n" for place in (found if isinstance(found, list) else ()))
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
