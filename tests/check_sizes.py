"""Size limits: a module or function that outgrows them is cut up, not excused.

Run as a script: prints what is too long; exit code 1 when something is over its limit.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mdcatch", "services", "schemer", "algorithms")
WARN_MODULE, FAIL_MODULE = 400, 600
WARN_FUNCTION, FAIL_FUNCTION = 40, 70


class Finding(NamedTuple):
    """One thing that is longer than it should be."""

    fails: bool
    text: str


def findings(source: str, name: str) -> Iterator[Finding]:
    """Yield what is too long in one module's source."""
    length = source.count("\n")
    if length > WARN_MODULE:
        limit = FAIL_MODULE if length > FAIL_MODULE else WARN_MODULE
        yield Finding(length > FAIL_MODULE, f"{name}: {length} lines (more than {limit})")
    for node in ast.walk(ast.parse(source, filename=name)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = code_lines(node)
        if length > WARN_FUNCTION:
            limit = FAIL_FUNCTION if length > FAIL_FUNCTION else WARN_FUNCTION
            text = f"{name}:{node.lineno} {node.name}: {length} lines (more than {limit})"
            yield Finding(length > FAIL_FUNCTION, text)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its docstring: explaining is not punished."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is None:
        return total
    docstring = node.body[0]
    return total - ((docstring.end_lineno or docstring.lineno) - docstring.lineno + 1)


def main() -> int:
    """Check every module of the packages and return the exit code."""
    found = [
        finding
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for finding in findings(path.read_text(), str(path.relative_to(ROOT)))
    ]
    for finding in sorted(found, key=lambda item: not item.fails):
        print("FAIL" if finding.fails else "warn", finding.text)
    failed = sum(finding.fails for finding in found)
    print(f"sizes: {failed} over the limit, {len(found) - failed} close to it")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
