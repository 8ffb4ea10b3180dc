"""What the tables of a page hold, read by the standard library."""

from html.parser import HTMLParser


class Tables(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self._cell = [], None

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if self._cell is not None and tag in ("td", "th"):
            self.found[-1][-1].append("".join(self._cell).strip())
            self._cell = None


def artifacts(page):
    """Return the table of artifacts of a page as a dict of columns for each artifact."""
    tables = Tables()
    tables.feed(page)
    heads, *rows = next(table for table in tables.found if table[0][0] == "artifact")
    return {row[0].removesuffix("best"): dict(zip(heads, row, strict=True)) for row in rows}
