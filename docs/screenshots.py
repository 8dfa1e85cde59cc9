"""Write docs/images/page*.png: the page as a browser shows it. `python docs/screenshots.py`.

The page takes the serif and sans-serif fonts of the machine; those of the pictures are Source Serif
and Source Sans, where they are installed.
"""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from dewey_embed import Dewey
from dewey_embed.serve.app import create_app
from dewey_embed.serve.server import Server
from dewey_embed.serve.settings import ServeSettings

IMAGES = Path(__file__).parent / "images"
COLOURS = 256
"""A palette is enough for paper, ink and one warm colour, and makes small files."""


class Shot(NamedTuple):
    """A picture: its file, the window, the sample and the query."""

    name: str
    width: int
    height: int
    scheme: str
    sample: str
    query: str
    granularity: int = 0


SHOTS = (
    Shot(
        "page", 1280, 800, "light", "constitution",
        "What if the president refuses to sign a law?",
    ),
    Shot(
        "page-dark", 1280, 800, "dark", "python", "How can a class customise attribute access?",
        granularity=1,
    ),
    Shot("page-phone", 380, 780, "light", "constitution", "How old must a senator be?"),
)  # fmt: skip


@contextmanager
def served() -> Iterator[str]:
    """The address of a server."""
    app = create_app(Server(Dewey.load(), {}, ServeSettings()))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def picture(browser: Browser, address: str, shot: Shot) -> bytes:
    """A PNG of the page with a sample open, once it has answered."""
    page = browser.new_page(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        reduced_motion="reduce",
    )
    page.goto(address)
    page.wait_for_selector("body[data-ready]", state="attached")
    titles = {"constitution": "Constitution", "python": "Python"}
    page.locator("#samples button", has_text=titles[shot.sample]).click()
    page.wait_for_selector("body[data-view=reading]", timeout=600_000)
    page.fill("#query", shot.query)
    page.press("#query", "Enter")
    page.wait_for_selector("#text .s.answer")
    page.locator("#granularity").fill(str(shot.granularity))
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1000)
    data = page.screenshot()
    page.close()
    return data


def main() -> None:
    """Take all pictures."""
    IMAGES.mkdir(exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for shot in SHOTS:
            image = Image.open(io.BytesIO(picture(browser, address, shot))).convert("RGB")
            path = IMAGES / f"{shot.name}.png"
            image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size:,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
