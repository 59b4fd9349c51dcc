"""The playground in a real browser: an image is dropped, a question asked, and the answers come piece by piece."""

import base64
from pathlib import Path

import httpx2
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests import pico
from tests.browser import SHOTS, browser, needs_browser, screen
from tests.runtime.serving.material import QUESTION, Running, Slow, answer, running, until
from vlmc.runtime import load
from vlmc.runtime.serving import Served

__all__ = ["browser"]  # the fixture

DROP = """
const data = new DataTransfer();
for (const [name, kind, text] of arguments[0]) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, { type: kind }));
}
const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
document.getElementById("drop").dispatchEvent(drop);
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pico.picture(0, 320, 240).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


class Page:
    """The playground of a server in a browser."""

    def __init__(self, browser: Chrome, server: Running) -> None:
        self._browser = browser
        browser.get(server.url)
        until(lambda: self.text("#state") != "connecting")

    def text(self, selector: str) -> str:
        return str(self._browser.find_element(By.CSS_SELECTOR, selector).text).strip()

    def texts(self, selector: str) -> list[str]:
        return [one.text.strip() for one in self._browser.find_elements(By.CSS_SELECTOR, selector)]

    def choose(self, *images: Path) -> None:
        self._browser.find_element(By.ID, "files").send_keys("\n".join(map(str, images)))
        until(lambda: len(self.texts(".image")) >= len(images))

    def ask(self, question: str = QUESTION) -> None:
        field = self._browser.find_element(By.ID, "question")
        field.clear()
        field.send_keys(question, Keys.ENTER)

    def click(self, selector: str) -> None:
        self._browser.find_element(By.CSS_SELECTOR, selector).click()

    def enabled(self, selector: str) -> bool:
        return bool(self._browser.find_element(By.CSS_SELECTOR, selector).is_enabled())

    def complaints(self) -> list[str]:
        """Return what the browser's console has, but for statuses, which are told on the page."""
        return [
            one["message"] for one in self._browser.get_log("browser") if "Failed to load resource" not in one["message"]
        ]

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page where $VLMC_SCREENSHOTS says."""
        if SHOTS:
            height = self._browser.execute_script("return document.documentElement.scrollHeight")
            width = self._browser.execute_script("return window.innerWidth")
            self._browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen(width, height))
            self._browser.save_screenshot(f"{SHOTS}/{name}.png")


@pytest.mark.integration
@needs_browser
def test_an_answer_comes_with_its_numbers(browser: Chrome, server: Running, artifact: Path, image: Path) -> None:
    page = Page(browser, server)
    assert (page.texts(".name"), page.texts(".badge"), page.text("#state")) == (["pico"], ["2:4"], "1 model")
    page.choose(image)
    page.ask()
    until(lambda: page.enabled("#send") and page.text(".first") != "\u2013")
    with load(artifact, threads=1) as model:
        expected = model.generate(image, QUESTION, max_new_tokens=512)
    assert page.text(".answer") == expected.text
    assert page.text(".tokens") == str(len(expected.tokens))
    assert page.text(".first").endswith("ms")
    assert float(page.text(".speed")) > 0
    assert page.complaints() == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(name.startswith((server.url, "data:", "blob:")) for name in loaded)


@needs_browser
def test_an_image_is_dropped_and_taken_away(browser: Chrome, server: Running, image: Path) -> None:
    page = Page(browser, server)
    page.ask()
    until(lambda: page.text("#problem") == "Choose an image first.")
    text = base64.b64encode(image.read_bytes()).decode()
    browser.execute_script(DROP, [["a.png", "image/png", text], ["b.png", "image/png", text]])
    until(lambda: len(page.texts(".image img")) == 2)
    page.click(".image button")
    until(lambda: len(page.texts(".image img")) == 1)
    browser.execute_script(DROP, [["a.txt", "text/plain", text]])
    until(lambda: page.text("#problem") == "a.txt is not an image")


@pytest.mark.integration
@needs_browser
def test_two_models_answer_side_by_side_one_after_the_other(browser: Chrome, image: Path) -> None:
    sparse, dense = Slow(), Slow()
    with running({"sparse": Served(sparse, "2:4"), "dense": Served(dense)}) as server:
        page = Page(browser, server)
        assert (page.texts(".name"), page.texts(".badge")) == (["sparse", "dense"], ["2:4", "dense"])
        page.choose(image)
        page.ask()
        until(lambda: len(sparse.asked) == 1)
        sparse.asked[0].add("three ")
        sparse.asked[0].tell()
        until(lambda: page.texts(".answer") == ["three", ""])
        assert dense.asked == []
        assert not page.enabled("#send")
        sparse.asked[0].add("digits")
        sparse.asked[0].tell()
        sparse.asked[0].end(answer("three digits"))
        until(lambda: len(dense.asked) == 1)
        dense.asked[0].add("three digits")
        dense.asked[0].tell()
        dense.asked[0].end(answer("three digits"))
        until(lambda: page.enabled("#send"))
        assert page.texts(".answer") == ["three digits"] * 2
        assert page.texts(".first") == ["250 ms"] * 2
        assert page.texts(".speed") == ["8.0"] * 2
        page.ask()
        until(lambda: len(sparse.asked) == 2)
        page.click("#stop")
        until(lambda: sparse.asked[1].done and page.enabled("#send"))
        assert len(dense.asked) == 1


@pytest.mark.integration
@needs_browser
def test_what_goes_wrong_is_told(browser: Chrome, models: dict[str, Served], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with running(models, key="secret") as server:
        page = Page(browser, server)
        assert "API key is missing" in page.text("#problem")
        page.click("summary")
        browser.find_element(By.ID, "key").send_keys("secret", Keys.TAB)
        until(lambda: page.texts(".name") == ["pico"])
        page.choose(tmp_path / "broken.png")
        page.ask()
        until(lambda: any("is not an image that can be read" in said for said in page.texts(".answer.wrong")))


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone_and_a_desk_in_light_and_dark(browser: Chrome, image: Path, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen(width))
    batchers = [Slow(), Slow()]
    with running({"artifact": Served(batchers[0], "2:4"), "a-dense-twin-with-a-long-name": Served(batchers[1])}) as server:
        page = Page(browser, server)
        page.choose(image)
        page.ask("How many digits are there, and which colours do they have?")
        for batcher in batchers:
            until(lambda batcher=batcher: len(batcher.asked) == 1)
            batcher.asked[0].add("Three digits: a blue 7, a red 4 and a green 1; " + "x" * 80)
            batcher.asked[0].tell()
            batcher.asked[0].end(answer())
        until(lambda: page.enabled("#send"))
        page.click("summary")
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(20, 23, 27)") == (scheme == "dark")
        page.shoot(f"{width}-{scheme}")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_the_page_loads_nothing_from_elsewhere(server: Running) -> None:
    for path, kind in (("/", "text/html"), ("/playground.css", "text/css"), ("/playground.js", "text/javascript")):
        response = httpx2.get(server.url + path)
        assert response.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "://" not in response.text
