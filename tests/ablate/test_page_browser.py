"""The page in a real browser: no error, sorting, tooltips, light and dark, narrow and wide."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

from poolswap.ablate.report import summarise
from poolswap.ablate.report.write import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

CATCH = "<script>window.caught = []; addEventListener('error', e => caught.push(String(e.message)));</script>"
ASK = """<script>addEventListener("load", () => {
  const column = n => [...document.querySelectorAll("#variants tbody tr")].map(row => row.cells[n].dataset.value);
  const press = n => document.querySelectorAll("#variants thead button")[n].click();
  const say = {caught, fonts: document.fonts.size, background: getComputedStyle(document.body).backgroundColor};
  say.tick = getComputedStyle(document.querySelector(".picture text")).fill;
  say.overflow = document.documentElement.scrollWidth - innerWidth;
  const table = document.querySelector(".scroll"), first = document.querySelector(".headlines strong");
  say.cut = table.scrollWidth - table.clientWidth;
  say.verdict = [first.textContent.trim(), first.getBoundingClientRect().bottom / innerHeight];
  say.before = column(4);
  press(4); say.up = column(4); say.sort = document.querySelectorAll("#variants th")[4].getAttribute("aria-sort");
  press(4); say.down = column(4);
  press(5); say.blanks = column(5);
  const bubble = document.getElementById("bubble"), tips = [...document.querySelectorAll(".tip")];
  say.hidden = bubble.hidden; say.tips = tips.length;
  tips[1].dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  say.hovered = bubble.textContent;
  const box = bubble.getBoundingClientRect();
  say.inside = box.left >= 0 && box.right <= innerWidth && box.top >= 0;
  document.body.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  say.left = bubble.hidden;
  tips[0].focus({preventScroll: true}); say.focused = bubble.hidden ? null : bubble.textContent;
  document.body.insertAdjacentHTML("beforeend", "<pre id='said'></pre>");
  document.getElementById("said").textContent = JSON.stringify(say);
});</script>"""

TELL = """<script>addEventListener("load", () => setTimeout(() => document.body.append(
  document.importNode(frames[0].document.getElementById("said"), true)), 500));</script>"""


@pytest.fixture
def browse(make_run, tmp_path):
    """browse(width, dark) -> what the page said of itself; `frame` is a narrower width than windows have."""
    folder, _ = make_run(fail=lambda trial: trial.seed == 1)

    def browse(width=1200, dark=False, frame=None):
        text = page(summarise([folder])).replace("<head>", "<head>" + CATCH).replace("</body>", ASK + "</body>")
        if frame:
            text = f"<iframe width={frame} height=800 srcdoc='{escape(text)}'></iframe>{TELL}"
        (tmp_path / "page.html").write_text(text)
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
        command += [f"--window-size={width},900", "--virtual-time-budget=4000", "--host-resolver-rules=MAP * ~NOTFOUND"]
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom"]
        done = subprocess.run([*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120)
        said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
        assert said, done.stderr[-2000:]
        return json.loads(unescape(said[1]))

    return browse


def test_the_page_sorts_explains_and_has_no_error(browse):
    said = browse()
    assert said["caught"] == []
    numbers = sorted(map(float, said["before"]))
    assert [float(value) for value in said["up"]] == numbers
    assert [float(value) for value in said["down"]] == numbers[::-1]
    assert said["sort"] == "ascending"
    assert said["blanks"][-2:] == ["", ""]  # the controls have no difference, and go last
    assert said["hidden"]
    assert said["tips"] > 4
    assert said["hovered"] == "soft, forward 2, as they are: -1.97 [-4.30, +0.40] open"
    assert said["inside"]
    assert said["left"]
    assert said["focused"]


def test_light_and_dark_are_both_readable(browse):
    light, dark = browse(), browse(dark=True)

    def brightness(colour):
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness(light["background"]) > 700 > 200 > brightness(light["tick"])
    assert brightness(dark["background"]) < 150 < 600 < brightness(dark["tick"])


def test_at_400_the_verdict_is_in_sight(browse):
    said = browse(frame=400)
    assert said["verdict"][0].endswith("open")
    assert 0 < said["verdict"][1] < 0.5
    assert said["overflow"] <= 0


@pytest.mark.parametrize("width", [500, 1280])
def test_nothing_runs_over_the_side(browse, width):
    said = browse(width)
    assert said["overflow"] <= 0
    assert said["caught"] == []
    assert width < 1280 or said["cut"] <= 0
