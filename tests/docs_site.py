"""A hook of MkDocs (`make docs`): links to files outside of docs/, such as the code's, become plain text in the site.

In the repository they lead to the file; the site has only the pages of docs/.
"""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with each page's text before it is read."""
    return without_links_outside(markdown, page.file.src_uri)


def without_links_outside(markdown: str, page: str) -> str:
    """The text of a page (its path in docs/) with only those links that stay in docs/ or lead to the web."""

    def shown(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2]))
        return link[1] if target.startswith("..") else link[0]

    return LINK.sub(shown, markdown)
