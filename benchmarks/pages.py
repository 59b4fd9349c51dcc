"""Tables in Markdown pages that are filled in from results: between `<!-- table: NAME -->` and `<!-- end -->`."""

import re
from pathlib import Path

from report import RESULTS

DOCS = RESULTS.parent.parent / "docs"


def with_table(text: str, name: str, content: str) -> str:
    """Return the page with the table of that name made anew.

    Raises:
        ValueError: the page has no place for it, or several.
    """
    mark = re.compile(rf"(<!-- table: {re.escape(name)} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    if len(mark.findall(text)) != 1:
        raise ValueError(f"a page must have one place for the table {name}: <!-- table: {name} --> ... <!-- end -->")
    return mark.sub(lambda found: f"{found[1]}\n{content}\n\n{found[3]}", text)


def fill(page: Path, name: str, content: str) -> None:
    """Bring a page's table up to date."""
    from vlmc.runtime.artifact.texts import write_text

    write_text(page, with_table(page.read_text(encoding="utf-8"), name, content))
