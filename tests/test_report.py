"""The page holds what the runs say, asks for nothing from outside, and renders in a real browser."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from steepest.app.compare import judged
from steepest.app.drawing import Line, chart, number, ticks
from steepest.app.report import Report, gather, read_metrics
from steepest.evidence.run import Arm, Outcome, versions, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


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
            "system": "grpo",
            "problem": "AddCliff",
            "seed": k,
            "options": {"lr": 3e-4},
            "command": ["steepest", "train", "grpo"],
        }
        (run / "run.json").write_text(json.dumps(config))
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


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (-3.7, 12.2), (1e-6, 3e-6), (1e6, 5e6), (0.95, 1.05)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 11
        assert low - 1e-9 <= found[0] <= found[-1] <= high * (1 + 1e-9)
    assert [number(x) for x in (0, 0.5, 12345, 1e-7)] == ["0", "0.5", "12,345", "1e-07"]


def browse(page: Path, folder: Path) -> tuple[str, set[str]]:
    """The page's document as the browser holds it, and the addresses that were asked for; the browser's own calls go nowhere."""
    net = folder / "net.json"
    quiet = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    own = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={net}", f"--user-data-dir={folder / 'profile'}"]
    command = [CHROMIUM, "--headless", "--no-sandbox", *quiet, *own, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return dom, set(re.findall(r'"url":"([a-z]+://[^"?]*)', net.read_text()))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_a_real_browser_shows_it_and_asks_for_nothing(made, tmp_path):
    intruder = '<img src="https://intruder.example/x.png"></main>'
    made.write_text(made.read_text().replace("</main>", intruder))
    dom, asked = browse(made, tmp_path)
    assert dom.count("<table>") == 8
    assert dom.count("<svg") == 3 + 2 + 1  # of runs, of the claim, of the comparison
    assert "second &lt;i&gt;" in dom
    assert "steepest reproduce ours" in dom
    assert not any("intruder" in url for url in asked)
    # the check has teeth: without the page's policy the browser would have asked
    made.write_text(re.sub(r"<meta http-equiv[^>]*>", "", made.read_text()))
    assert any("intruder" in url for url in browse(made, tmp_path)[1])
