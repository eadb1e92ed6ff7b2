"""Print the command that README gives for the tests, so that CI runs what a reader runs.

Usage: python3 .ci/readme_command.py README.md
"""

import re
import sys
from pathlib import Path

HEADING = "Run the tests"
_SECTION = re.compile(rf"^#+ {HEADING}\n(.*?)(?=^#+ |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shell_blocks(markdown: str) -> list[str]:
    """The fenced blocks of shell in a page, in their order."""
    return [block.strip() for block in _BLOCK.findall(markdown)]


def tests_command(markdown: str) -> str:
    """The block of shell under the heading "Run the tests".

    Args:
        markdown: The page's text.

    Raises:
        ValueError: There is not exactly one such heading with exactly one block of shell.
    """
    # A line of a block that starts with "#" is no heading, so blocks keep their place while headings are looked for.
    hidden = _BLOCK.sub(lambda found: found[0].replace("\n#", "\n\0"), markdown)
    sections = _SECTION.findall(hidden)
    blocks = [block for section in sections for block in shell_blocks(section.replace("\n\0", "\n#"))]
    if len(sections) != 1 or len(blocks) != 1:
        raise ValueError(
            f"markdown must have one heading {HEADING!r} with one block of shell under it, "
            f"but got {len(sections)} headings and {len(blocks)} blocks."
        )
    return blocks[0]


if __name__ == "__main__":
    print(tests_command(Path(sys.argv[1]).read_text(encoding="utf-8")))
