"""The page holds what the runs say, asks for nothing from outside, and renders in a real browser."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import combinations
from urllib.request import Request, urlopen

import numpy as np
import pytest

from steepest.app.compare import judged
from steepest.app.drawing import Line, chart, cut, number, pairs, ticks
from steepest.app.report import Report, gather, page, read_metrics
from steepest.evidence.run import Arm, Outcome, versions, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


def arm(name, values, slope):
    curves = [[slope * k + 0.05 * s for k in range(20)] for s in range(len(values))]
    return Arm(f"steepest.systems.robust.{name}", {"lr": 0.1, "name": "a<b"}, 20, values, list(range(1, 21)), curves)


def outcome():
    gaps = [0.4, 0.5, 0.45]
    return Outcome(
        verdict="shown", says="ours <b>beats</b> theirs & more", why="", unit="return", gap=0.45, low=0.33, high=0.57, margin=0.0,
        bootstrap=(0.4, 0.5), gaps=gaps, seeds=[0, 1, 2], ours=arm("ours", [0.9, 1.0, 0.95], 0.05),
        baseline=arm("theirs", [0.5] * 3, 0.01),
        problem="steepest.problems.toy", problem_options={"size": 3}, vary=None, figure="score", tried="nothing", seconds=12.0,
        wall=7.0, versions=versions(), date="2026-11-24T15:00:00+00:00", commit="abc",
    )  # fmt: skip


def comparison():
    scores = {"grpo": [[0.1], [0.2], [0.3]], "rloo(lr=1e-4)": [[0.3], [0.4], [0.35]]}
    found = judged({name: np.array(x) for name, x in scores.items()}, 200)
    return {
        "systems": list(scores), "problems": ["AddCliff"], "seeds": [0, 1, 2], "steps": 10, "figure": ["accuracy"], "scaled": False,
        "summary": found, "scores": scores, "seconds": dict.fromkeys(scores, 4.0),
        "options": {name: {"lr": 1.0} for name in scores}, "versions": versions(), "date": "2026-11-24",
    }  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    for k, name in enumerate(("first", "second <i>")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        rows = [
            {"step": s, "seconds": 0.5 * s, "loss": math.exp(-s / 100), "score": math.sin(s / 40) + k, "kl": 0.01 * s}
            for s in range(1, 301)
        ]
        rows[50]["loss"] = math.nan
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {
            "system": "grpo", "problem": ("AddCliff", "ChainSum")[k], "seed": k, "options": {"lr": 3e-4}, "threads": 2,
            "figure": "loss", "command": ["steepest", "train", "grpo"],
        }  # fmt: skip
        (run / "run.json").write_text(json.dumps(config))
    first = tmp_path / "runs" / "first"
    (first / "evaluation.json").write_text(json.dumps({"before": {"accuracy": 0.25}, "after": {"accuracy": 0.75}}))
    for step in (1, 2):
        (first / f"checkpoints/step-{step}").mkdir(parents=True)
        notes = {"version": f"0.{step}", "torch": "2.9", "state": {"large": [1, 2]}}
        (first / f"checkpoints/step-{step}/steepest.json").write_text(json.dumps(notes))
    write(outcome(), tmp_path / "evidence" / "ours.json")
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.json").write_text(json.dumps(comparison()))
    return tmp_path


@pytest.fixture
def made(folders):
    path = folders / "out" / "report.html"
    Report((folders / "runs", folders / "evidence", folders / "compare"), out=path, title="A <title>").run()
    return path


class Reader(HTMLParser):
    """Every tag with its attributes, and whether tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle") or (tag == "circle" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing(made):
    text = made.read_text()
    reader = Reader(text)
    assert reader.open == []
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    links = [value for _, attrs in reader.tags for key, value in attrs.items() if key in ("href", "src", "srcset", "data")]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"https?:|url\(|@import", text)


def test_names_are_escaped(made):
    text = made.read_text()
    assert "A &lt;title&gt;" in text
    assert "ours &lt;b&gt;beats&lt;/b&gt; theirs &amp; more" in text
    assert "<i>" not in text


def test_it_says_how_to_run_again(made):
    text = made.read_text()
    for command in (
        "steepest train grpo\n",
        "steepest reproduce ours",
        "steepest compare grpo &#x27;rloo(lr=1e-4)&#x27; --problem AddCliff",
    ):
        assert command in text


def test_a_resumed_run_keeps_its_later_rows_and_a_torn_last_line_is_no_error(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "score": 0}\n{"step": 2, "score": 5}\n{"step": 2, "score": 7}\n{"step": 3, "sco')
    assert [row["score"] for row in read_metrics(file)] == [0, 7]
    file.write_text('{"step": 1, "score": 0}\nnonsense\n{"step": 2, "score": 7}\n')
    with pytest.raises(ValueError, match="line 2 is no row of metrics"):
        read_metrics(file)


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        gather([tmp_path / "absent"])
    with pytest.raises(ValueError, match=r"holds no metrics\.jsonl"):
        gather([tmp_path])
    with pytest.raises(ValueError, match="one or more folders"):
        gather([])


def test_charts_break_where_numbers_are_not_finite_and_average_long_curves():
    assert chart([Line([1, 2, 3, 4, 5], [1, 2, math.nan, 4, 5], "a", 0)], "t").count("<polyline") == 2
    assert "no finite value" in chart([Line([1], [math.nan], "a", 0)], "t")
    assert chart([Line([1, 2], [3.0, 3.0], "flat", 0)], "t").count("<polyline") == 1
    long = chart([Line(range(10_000), range(10_000), "a", 0)], "t")
    assert len(re.search(r'points="([^"]*)"', long)[1].split()) == 240


def test_ticks_are_round_inside_and_told_apart():
    near = (0.95, 1.05), (1234.561, 1234.569), (2e6 + 1, 2e6 + 2)
    for low, high in ((0, 1), (-3.7, 12.2), (1e-6, 3e-6), (1e6, 5e6), (-5e-5, 5e-5), *near):
        found = ticks(low, high)
        values, texts = zip(*found, strict=True)
        assert 3 <= len(found) <= 11
        assert low - 1e-9 <= values[0] <= values[-1] <= high + 1e-9
        assert len(set(texts)) == len(texts)
        assert all(float(text.replace(",", "")) == pytest.approx(x, abs=1e-12, rel=1e-9) for x, text in found)
    assert [number(x) for x in (0, 0.5, 12345, 1e-7)] == ["0", "0.5", "12,345", "1e-07"]


def test_long_names_are_cut_and_told_whole():
    assert cut("a<b", 3) == "a&lt;b"
    assert cut("abcdef", 4) == "abc…<title>abcdef</title>"


def test_runs_of_different_problems_stand_apart_and_say_where_they_ran(folders):
    found = gather([folders / "runs"])
    text = page(found, "t")
    assert [run.metrics for run in found.runs] == [["loss", "score", "kl"]] * 2
    assert text.index("Runs on AddCliff") < text.index("Runs on ChainSum")
    assert "<td>accuracy</td><td class=right>0.25</td><td class=right>0.75</td>" in text
    assert "<td>loss, training</td>" in text  # the second run has no evaluation
    assert found.runs[0].environment == {"steepest": "0.2", "torch": "2.9", "threads": 2}
    assert "large" not in text
    (folders / "runs" / "first" / "run.json").unlink()  # then the newest checkpoint says what was asked for
    notes = {"version": "0.2", "system": "rloo", "state": {"large": 1}}
    (folders / "runs/first/checkpoints/step-2/steepest.json").write_text(json.dumps(notes))
    again = gather([folders / "runs" / "first"]).runs[0]
    assert again.config["system"] == "rloo"
    assert "state" not in again.config


def test_what_never_changed_is_drawn_last(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": s, "score": 256, "return": s}) + "\n" for s in (1, 2, 3)))
    assert gather([tmp_path]).runs[0].metrics == ["return", "score"]


# ------------------------------------------------------------------------------------ in a browser


class Browser:
    """Chromium behind its driver, spoken to in plain HTTP. What it asks the network for goes nowhere."""

    def __init__(self, folder):
        self.driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        port = next(found[1] for line in self.driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        self.root = f"http://127.0.0.1:{port}/session"
        quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
        args = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
        args += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
        logs = {"performance": "ALL", "browser": "ALL"}
        asked = {"goog:chromeOptions": {"args": args, "binary": CHROMIUM}, "goog:loggingPrefs": logs}
        try:
            self.root += "/" + self.call("", capabilities={"alwaysMatch": asked})["sessionId"]
        except BaseException:
            self.driver.kill()
            raise

    def call(self, path, **body):
        request = Request(self.root + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def show(self, page, width, dark):
        """Open a page as a screen of that width would."""
        for command, params in (
            ("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}),
            ("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}),
        ):
            self.call("/goog/cdp/execute", cmd=command, params=params)
        self.call("/url", url=page.as_uri())

    def run(self, script):
        return self.call("/execute/sync", script=script, args=[])

    def asked(self, page):
        """Addresses that the page asked for since the last call: those that its own policy stopped are not among them."""
        events = [json.loads(row["message"])["message"] for row in self.call("/se/log", type="performance")]
        stopped = {e["params"]["requestId"] for e in events if e["params"].get("blockedReason") == "csp"}
        sent = (e["params"] for e in events if e["method"] == "Network.requestWillBeSent")
        return [e["request"]["url"] for e in sent if e["documentURL"] == page.as_uri() and e["requestId"] not in stopped]

    def complaints(self):
        return [row["message"] for row in self.call("/se/log", type="browser")]

    def close(self):
        urlopen(Request(self.root, method="DELETE"), timeout=60).close()
        self.driver.terminate()
        self.driver.wait(20)


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium here: apt-get install chromium chromium-driver")
    opened = Browser(tmp_path)
    yield opened
    opened.close()


OPEN = "document.querySelectorAll('details').forEach(d => d.open = true);"
CHARTS = """return [...document.querySelectorAll('svg')].map(svg => {
  const box = x => { const r = x.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] };
  return {viewBox: svg.getAttribute('viewBox'), box: box(svg), font: 12 * svg.getScreenCTM().a,
          texts: [...svg.querySelectorAll('text')].map(t => [t.firstChild.textContent, ...box(t)])} })"""
WIDE = """return [...document.querySelectorAll('main *')].filter(x => !x.closest('.wide, pre, svg') || x.matches('.wide, pre, svg'))
  .filter(x => x.getBoundingClientRect().right > innerWidth + 0.5).map(x => x.outerHTML.slice(0, 80))"""


def overlapping(texts):
    return [(a[0], b[0]) for a, b in combinations(texts, 2) if a[1] < b[3] and b[1] < a[3] and a[2] + 3 < b[4] and b[2] + 3 < a[4]]


@pytest.mark.parametrize(("width", "dark"), [(400, True), (1200, False)])
def test_a_real_browser_shows_it_whole_and_asks_for_nothing(made, browser, width, dark):
    browser.show(made, width, dark)
    browser.run(OPEN)
    assert browser.asked(made) == [made.as_uri()]
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    charts = browser.run(CHARTS)
    assert len(charts) == 3 + 3 + 2 + 1  # of two runs, the claim and the comparison
    for drawn in charts:
        left, top, right, bottom = drawn["box"]
        assert len(drawn["viewBox"].split()) == 4
        assert bottom - top > 90
        assert drawn["font"] > 9
        assert overlapping(drawn["texts"]) == []
        assert all(left <= a and b <= right and top <= c and d <= bottom for _, a, c, b, d in drawn["texts"])
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 100) is dark


def test_the_browser_checks_have_teeth(made, browser):
    text = made.read_text()
    intruder = '<img src="https://intruder.example/x.png">'
    names = ("a_name_of_twenty_five_let", "another_of_25_letters_too")
    crowded = pairs([0.5], [0.5], names, "t").replace('x="142"', 'x="300"') + "<div style='width:3000px'>x</div>"
    made.write_text(text.replace("</main>", intruder + crowded + "</main>"))
    browser.show(made, 400, False)
    assert not any("intruder" in url for url in browser.asked(made))  # the page's own policy stops it
    assert any("Content Security Policy" in said for said in browser.complaints())
    assert len(browser.run(WIDE)) == 1
    assert sum(len(overlapping(drawn["texts"])) for drawn in browser.run(CHARTS)) == 1
    made.write_text(re.sub(r"<meta http-equiv[^>]*>", "", made.read_text()))
    browser.show(made, 400, False)
    assert any("intruder" in url for url in browser.asked(made))
