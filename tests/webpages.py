"""What tests ask of a written page, and what they need before anything is drawn."""

from html.parser import HTMLParser

from PIL import Image, ImageDraw

from services.report import ctfplots, plots


def open_fonts() -> None:
    """Draw a letter: fonts stay open once they were used, which is no leak of the test at hand."""
    plots.draw(lambda figure: figure.text(0.5, 0.5, "a"))  # type: ignore[arg-type, return-value]
    picture = Image.new("RGB", (40, 40))
    ctfplots.label(ImageDraw.Draw(picture), (0, 0), "a", (255, 255, 255))


class Page(HTMLParser):
    """Collects what a page loads, and checks that its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "input", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
