"""The page of an experiment in headless Chromium: what it loads, how it is used with the keyboard, how wide it is."""

import os
import shutil
import wave

import pytest

from speechlvm.bin import page as program

HOSTILE = "<img src=x onerror=\"document.title='injected'\">"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOADED = "() => [...document.querySelectorAll('audio')].every((audio) => audio.readyState >= 1)"
PLAYING = """(expected) => {
    const audios = [...document.querySelectorAll('audio')].filter((audio) => !audio.paused);
    const buttons = [...document.querySelectorAll('button')].filter((button) => button.ariaLabel.startsWith('Pause'));
    const names = [audios.map((a) => a.ariaLabel), buttons.map((b) => b.ariaLabel.slice(6))];
    return names.every((some) => some.join() === expected);
}"""
FOCUS = "() => document.activeElement.tagName + ' ' + document.activeElement.ariaLabel"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: bash tools/setup.sh")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH (Debian: apt install chromium)")
    with playwright.sync_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, make_experiment):
    """visit(**options of the browser's context): the page of an experiment, without network; fails on any complaint."""
    contexts, complaints = [], []
    directory = make_experiment(extra=[{"name": "long_1", "kind": HOSTILE, "description": HOSTILE, "level": HOSTILE}])
    program.main(["--exp", str(directory), "--title", HOSTILE])

    def call(**options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
        page.on("request", lambda request: complaints.append(request.url[:80]) if _is_foreign(request.url) else None)
        page.goto((directory / "index.html").as_uri())
        page.wait_for_function(LOADED)
        return page

    call.directory = directory
    yield call
    for context in contexts:
        context.close()
    assert complaints == []


def _is_foreign(address):
    return not address.startswith(("data:", "file:///")) or "index.html" not in address and address.startswith("file:")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
    return page.evaluate(FOCUS)


def test_every_sound_and_picture_is_loaded(visit):
    page = visit()
    read = "() => [...document.querySelectorAll('audio')].map((a) => [a.ariaLabel, a.duration, a.error])"
    found = {name: (duration, error) for name, duration, error in page.evaluate(read)}
    assert len(found) == 5
    for path in (visit.directory / "samples").glob("*.wav"):
        with wave.open(str(path)) as sound:
            assert found[path.stem] == (pytest.approx(sound.getnframes() / sound.getframerate(), abs=1e-3), None)
    read = "() => [...document.images].map((i) => [i.complete, i.naturalWidth, i.alt, i.getBoundingClientRect().width])"
    pictures = page.evaluate(read)
    assert len(pictures) == 10
    assert all(complete and natural > 0 and alt.strip() and shown > 0 for complete, natural, alt, shown in pictures)


def test_the_keyboard_reaches_and_plays_everything(visit):
    page = visit()
    assert press(page, "Tab") == "A null"
    assert page.evaluate("() => document.activeElement.textContent") == "Skip to the contents"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # seen once it has the focus
    press(page, "Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    for _ in range(9):
        if press(page, "Tab") == "BUTTON Play prior_0":
            break
    assert page.evaluate(FOCUS) == "BUTTON Play prior_0"
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert press(page, "Tab") == "BUTTON Play continuation_u1"  # one stop for each kind
    assert press(page, "Shift+Tab", "ArrowRight") == "BUTTON Play prior_1"
    assert press(page, "Tab", "Shift+Tab") == "BUTTON Play prior_1"  # as it was left
    assert press(page, "ArrowDown", "ArrowRight") == "BUTTON Play resampled_z2_1"
    assert press(page, "End", "ArrowRight") == "BUTTON Play long_1"
    assert press(page, "Home", "ArrowLeft") == "BUTTON Play prior_0"
    press(page, "Space")
    page.wait_for_function(PLAYING, arg="prior_0")
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0.05")
    press(page, "ArrowRight", "Enter")
    page.wait_for_function(PLAYING, arg="prior_1")
    assert page.evaluate("() => document.querySelector('audio').currentTime") == 0
    press(page, "Space")
    page.wait_for_function(PLAYING, arg="")
    assert page.evaluate(FOCUS) == "BUTTON Play prior_1"
    press(page, "Shift+ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('audio')[1].currentTime >= 0.5")
    press(page, "Escape")
    page.wait_for_function("() => document.querySelectorAll('audio')[1].currentTime == 0")


def test_a_sound_ends_by_itself_and_can_be_entered_by_the_mouse(visit):
    page = visit()
    page.locator(".view").nth(1).click(position={"x": 150, "y": 20})
    page.wait_for_function(PLAYING, arg="prior_1")
    assert page.evaluate("() => document.querySelectorAll('audio')[1].currentTime") > 0.2
    page.wait_for_function("() => document.querySelectorAll('audio')[1].ended")
    page.wait_for_function(PLAYING, arg="")


def test_nothing_is_wider_than_the_window_and_all_can_be_read(visit):
    page = visit()
    colours = "() => { const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]; }"
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            ground, text = (sum(map(int, colour[4:-1].split(","))) / 3 for colour in page.evaluate(colours))
            assert abs(ground - text) > 150 and (ground < text) == (scheme == "dark")


def test_hostile_names_stay_text(visit):
    page = visit()
    assert page.title() == HOSTILE and page.locator("h1").inner_text() == HOSTILE
    assert page.locator("h3").last.inner_text() is not None
    assert page.evaluate("() => [...document.images].some((i) => i.src.endsWith('x'))") is False


def test_without_a_script_the_browser_plays(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("audio[controls]").count() == 5 and page.locator("button:visible").count() == 0
