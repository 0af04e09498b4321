#!/usr/bin/env python3
"""What mdBook lacks for this book.

book.py supports RENDERER, and without arguments: the preprocessor of book.toml. Links that leave docs/ become text that names the file.
book.py check FOLDER: every link of a built book leads to a file and a heading that are there; every image is there and has a text in its place.
"""

import html.parser
import json
import pathlib
import re
import sys
import urllib.parse

OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+((?:\.github/)?(?:[A-Z]+\.md|LICENSE)[^)]*)\)")


def without_outside(chapter):
    """Only what is not a page of the book: pt-BR's links to pages above it begin with small letters."""
    chapter["content"] = OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2].split('#')[0]}` in the repository)", chapter["content"])
    for item in chapter["sub_items"]:
        if "Chapter" in item:
            without_outside(item["Chapter"])


def preprocess():
    _, book = json.load(sys.stdin)
    for item in book.get("items", book.get("sections", [])):
        if isinstance(item, dict) and "Chapter" in item:
            without_outside(item["Chapter"])
    json.dump(book, sys.stdout)


class Page(html.parser.HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.without_text = [], set(), 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img":
            self.links.append(attributes.get("src") or "an image without src")
            self.without_text += not attributes.get("alt")


def check(folder):
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    # These show every page again, under another address.
    counted = {path: page for path, page in pages.items() if path.name not in ("print.html", "toc.html", "404.html")}
    links, broken = 0, []
    for path, page in counted.items():
        if page.without_text:
            broken.append(f"{path.relative_to(folder)}: an image has no text in its place")
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            links += 1
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if not target.exists():
                broken.append(f"{path.relative_to(folder)}: {link} is not there")
            elif url.fragment and target in pages and urllib.parse.unquote(url.fragment) not in pages[target].anchors:
                broken.append(f"{path.relative_to(folder)}: {link} has no such heading")
    print(f"{len(counted)} pages, {links} links")
    sys.exit("\n".join(broken) or (0 if len(counted) > 10 and links > 100 else "hardly anything was found"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check(pathlib.Path(sys.argv[2]).resolve())
    elif sys.argv[1:2] != ["supports"]:
        preprocess()
