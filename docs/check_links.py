"""Do the links of a built site lead somewhere? Every file and every anchor, and none to a network that a page needs."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

NEEDED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src"}
HINTS = {"canonical", "search", "author", "license"}  # a link that is not fetched


class Page(HTMLParser):
    """The anchors of a page, its links to read on, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(NEEDED.get(tag, ""), "") and values.get("rel") not in HINTS:
            self.loaded.append(values[NEEDED[tag]])


def faults(site: Path) -> list[str]:
    """A line for each link that leads nowhere, and for each thing that a page would load from elsewhere."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        for link in page.links + page.loaded:
            address, anchor = urldefrag(link)
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    found.append(f"{here}: loads {link} from a network")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{here}: no file {link}")
            elif target in pages and unquote(anchor) not in pages[target].anchors:
                found.append(f"{here}: no anchor {link}")
    return found


def main(folder: str) -> int:
    """Prints what is wrong; 1 where something is."""
    found = faults(Path(folder))
    print("\n".join(found) or f"every link in {folder} leads somewhere")
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
