"""`trt-bench docs`: write the pages whose figures are generated."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from worldrt.engine import cli
from worldrt.engine.files import staged_file


def add(verbs: Any) -> None:
    """The verb and its flags."""
    text = "write the pages of docs/ whose figures come from committed results"
    parser: cli.Parser = verbs.add_parser("docs", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=run)
    parser.add_argument("--newest", action="store_true", help="take the newest results of each verb from now on")
    parser.add_argument("--check", action="store_true", help="only say which would change; exit code 1 where one would")


def run(args: Namespace) -> int:
    """Write what changed, and name it."""
    from worldrt.benchmarks.pages import generate

    changed = 0
    for name in generate.names() if args.newest else ():
        template = generate.TEMPLATES / f"{name}.md"
        text = template.read_text(encoding="utf-8")
        with staged_file(template, overwrite=True) as part:
            part.write_text(generate.newest(text), encoding="utf-8")
    for name in generate.names():
        path, text = generate.HOUSE / "docs" / f"{name}.md", generate.page(name)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        changed += 1
        print(path)
        if not args.check:
            with staged_file(path, overwrite=True) as part:
                part.write_text(text, encoding="utf-8")
    return 1 if changed and args.check else 0
