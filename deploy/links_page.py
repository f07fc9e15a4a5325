"""The page of links that `make ui` serves: each page of the platform, and whether it answers."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Link(NamedTuple):
    """One page."""

    title: str
    url: str
    text: str
    trouble: str = ""
    """Why it cannot be reached now; empty: it can."""


_STYLE = """
body {font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem}
li {margin: 0 0 1rem} .off {color: #a00} .note {color: #666}
"""


def page(title: str, links: Sequence[Link]) -> str:
    """Return the page as HTML; it asks for itself again every few seconds."""
    items = "\n".join(_item(link) for link in links)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><h1>{escape(title)}</h1>
<ul>
{items}
</ul>
<p class="note">Ports of this machine only, until <code>make ui</code> ends.</p>
</body></html>
"""


def _item(link: Link) -> str:
    name = escape(link.title)
    if link.trouble:
        return f'<li>{name} <span class="off">{escape(link.trouble)}</span></li>'
    url = escape(link.url, quote=True)
    note = f'<span class="note">{escape(link.text)}</span>'
    return f'<li><a href="{url}">{name}</a><br>{note}</li>'
