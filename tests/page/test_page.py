import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.page.made_up import EVIL, broken, run, splits
from tests.page.table import artifacts
from tests.test_report import NOISE, row
from tfopt import page, report
from tfopt.answers import Answers
from tfopt.data import Image, LogMel, Tokens, Waveform
from tfopt.data.normalisation import Normalisation
from tfopt.page import charts, examples, report_html, verdicts
from tfopt.page.histograms import histograms
from tfopt.page.promises import promises
from tfopt.spec import plain

FRONTS = ["size, latency", "latency", "size"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    content, data = run(folder)
    page.write(content, folder, data, "tfopt --config=made_up.py")
    return content, data, folder, (folder / "report.html").read_text()


def test_the_table_has_the_figures_of_the_rows(made):
    content, _, _, text = made
    found = artifacts(text)
    assert list(found) == [report.name_of(each) for each in content["rows"]]
    for each in content["rows"]:
        cells = found[report.name_of(each)]
        assert cells["accuracy"] == f"{each['accuracy']:.2%}"
        assert cells["bytes"] == f"{each['bytes']:,}"
        assert cells["zeros"] == f"{each['sparsity']:.2%}"
        assert cells["median µs"] == f"{each['latency_median_us']:,.0f}"
        assert f'href="artifacts/{report.name_of(each)}.tflite"' in text
    assert [each["front of"] for each in found.values()] == FRONTS


def test_it_is_one_small_file_without_a_network(made):
    _, _, folder, text = made
    assert (folder / "report.html").stat().st_size < 500_000
    assert "http:" not in text and "https:" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#|artifacts/)', text)
    assert not re.findall(r"url\((?!#)", text)
    assert "{{" not in text and "{%" not in text


def test_what_users_named_is_escaped(made):
    text = made[-1]
    assert EVIL not in text
    assert text.count("<script>") == 1, "our own"
    assert "made up &lt;script&gt;" in text


def test_ids_are_of_the_whole_page(made):
    ids = re.findall(r' id="([^"]+)"', made[-1])
    referred = set(re.findall(r'(?:href="#|url\(#|labelledby=")([\w-]+)', made[-1]))
    assert referred <= set(ids)
    assert made[-1].count("<svg") == made[-1].count('role="img"') == 7


def test_it_says_what_was_asked_and_what_differs(made):
    content, data, folder, text = made
    assert "✓ all 2" in text and "✗" not in text.split("What only")[0]
    asked = json.loads(json.dumps(content))
    asked["experiment"]["stages"][1]["sparsity"] = 0.9
    asked["experiment"]["budget"] = {"flash": 79_000, "arena": 1000}
    asked["rows"][2]["arena_bytes"] = 900
    asked["ended_by"] = f"it broke {EVIL}"
    asked["rows"][2]["bytes"] = 79_488
    other = page.html(asked, folder, data)
    assert "✗ 2 of 4 differ" in other
    assert "488 too many" in other
    assert "Failed." in other and EVIL not in other
    assert "begun from Python" in other


def test_a_budget_is_that_of_the_nearest_artifact_of_the_last_stage(made):
    content, *_ = made
    asked = json.loads(json.dumps(content))
    asked["experiment"]["budget"] = {"flash": 100, "arena": 40}
    planned = row("prune", "int8", bytes=90, arena_bytes=50)
    refused = row("prune", "float16", bytes=10, arena_bytes=None)

    def found(*rows):
        kinds = promises({**asked, "rows": list(rows)})
        return [(p["delivered"], p["kept"], p["reason"]) for p in kinds if p["who"] == "budget"]

    flash, arena = found(row("train", "int8", bytes=1, arena_bytes=1), refused, planned)
    assert flash == ("90 (prune_int8)", True, "")
    assert arena == ("50 (prune_int8)", False, "10 too many")
    assert [kept for _, kept, _ in found(refused)] == [True, False]
    assert [kept for _, kept, _ in found({**refused, "micro_refused": "no SIN"})] == [False, False]


def test_examples_are_what_the_last_stage_alone_has_wrong(made):
    text = made[-1]
    # Of 120, number 1 and every 7th after it are wrong in the one, every 9th in the other.
    before, after = set(range(1, 120, 7)), set(range(1, 120, 9))
    assert f"alone is wrong on {len(after - before)}, train_float32 alone on" in text
    assert text.count('alt="Image of test example') == len(after - before)


def test_a_plot_that_fails_costs_only_itself(made, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("no plot today")

    content, data, folder, _ = made
    monkeypatch.setattr(charts, "trade_off", fail)
    text = page.html(content, folder, data)
    assert text.count("This plot failed") == 2
    assert text.count("<svg") == 5
    assert "without the plot of size" in caplog.text


def test_a_page_that_fails_costs_no_run(made, monkeypatch, caplog, tmp_path):
    content, data, *_ = made
    page.write({"rows": content["rows"]}, tmp_path, data)
    assert not list(tmp_path.iterdir())
    assert "without the page" in caplog.text


def test_what_is_missing_is_left_out(made, tmp_path):
    content, data, *_ = made
    without = ("history", "weights", "left_float")
    bare = [{k: v for k, v in s.items() if k not in without} for s in content["stages"]]
    one = content | {"stages": [{**bare[0], "history": []}], "rows": content["rows"][:1]}
    for less in (one, content | {"rows": []}, content | {"rows": [], "stages": []}):
        text = page.html(less, tmp_path, data)
        assert "failed" not in text
        assert "Confusion matrix" not in text
    assert page.html(broken(content), made[2], data).count("–") > 4


def test_a_kernel_that_a_stage_has_made_was_nothing_before(made):
    content, data, folder, _ = made
    stage = content["stages"][1]
    kernel = {**stage["after"]["kernels"][0], "layer": "brand_new"}
    stages = [content["stages"][0], {**stage, "after": {**stage["after"], "kernels": [kernel]}}]
    text = page.html(content | {"stages": stages}, folder, data)
    assert re.search(r"brand_new</th><td[^>]*>[\d.]+%</td><td[^>]*>–</td>", text)


def test_many_classes_and_layers_stay_small(tmp_path):
    names = [f"class number {index}" for index in range(150)]
    content, data = run(tmp_path, names)
    kernel = content["rows"][2]["kernels"][0]
    many = [{**kernel, "name": f"block_{n}/expanded_conv_with_a_name"} for n in range(500)]
    content["rows"][2]["kernels"] = many
    content["rows"][2]["layers"] = [{**NOISE, "layer": each["name"]} for each in many]
    whole = content["stages"][1]["after"]
    content["stages"][1]["after"] = {**whole, "kernels": whole["kernels"] * 500}
    text = page.html(content, tmp_path, data)
    assert "failed" not in text
    assert len(text) < 900_000
    assert "400 more kernels" in text
    assert 'alt="Confusion matrix of 150 classes' in text


def test_so_many_classes_that_nobody_can_see_a_matrix_leave_it_out(tmp_path, monkeypatch):
    monkeypatch.setattr(report_html, "_PICTURED", 2)
    content, data = run(tmp_path)
    text = page.html(content, tmp_path, data)
    assert "Confusion matrix" not in text
    assert "Most frequent mistakes" in text


def test_confidence_and_confusion():
    sure = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.37, 0.63], [0.36, 0.64]], np.float32))
    found = Answers(sure, np.array([0, 1, 1, 1]))
    bins = verdicts.reliability(found)
    assert [each["count"] for each in bins] == [2, 2]
    assert [each["accuracy"] for each in bins] == [1.0, 0.5]
    assert verdicts.calibration_error(bins) == pytest.approx((0.365 + 0.4) / 2)
    matrix = verdicts.confusion(found, 2)
    assert matrix.tolist() == [[1, 0], [1, 2]]
    assert verdicts.most_confused(found, ["a", "b"]) == [{"true": "b", "said": "a", "count": 1}]


def test_histograms_have_a_bin_for_zeros():
    found = histograms(np.linspace(-1, 1, 1001), np.zeros(10))
    assert found["after"][20] == 1.0
    assert sum(found["before"]) == pytest.approx(1, abs=1e-4)
    assert found["limit"] == pytest.approx(1, abs=0.01)
    assert histograms(np.zeros(0), np.zeros(0))["before"] == [0.0] * 41


@pytest.mark.parametrize(
    ("front_end", "example", "kind"),
    [
        (Image(peak=16), np.full((8, 8, 1), 16.0), "image"),
        (Image(), np.zeros((300, 200, 3)), "image"),
        (Waveform(rate=8000), np.sin(np.arange(8000.0)), "spectrogram"),
        (Waveform(), np.zeros((4, 1)), "spectrogram"),
        (LogMel(), np.zeros((49, 40, 1)), "spectrogram"),
    ],
)
def test_examples_are_drawn_by_their_front_end(front_end, example, kind):
    shown = examples.drawn(front_end, example)
    assert shown["kind"] == kind
    assert len(shown["image"]) < 40_000


def test_a_vocabulary_is_not_on_the_page(made):
    content, data, folder, _ = made
    front_end = plain(Tokens(vocabulary=tuple(f"word{n}" for n in range(100_000))))
    asked = content["experiment"] | {"data": {"type": "my.Words", "front_end": front_end}}
    text = page.html(content | {"experiment": asked}, folder, data)
    assert len(text.encode()) < 500_000
    assert "word49&#34;" in text and "word50&#34;" not in text and "… and 99,950 more" in text


def test_tokens_become_words_again():
    front_end = Tokens(vocabulary=("good", EVIL.strip("<>")))
    shown = examples.drawn(front_end, np.array([2.0, 1.0, 3.0, 0.0]))
    assert shown == {"text": "good □ script>alert(1)</script"}


@pytest.mark.parametrize(
    ("front_end", "shown"),
    [(Tokens(vocabulary=("word",) * 255), "<blockquote>word word"), (None, "test example")],
)
def test_what_is_no_picture_is_on_the_page_too(made, front_end, shown):
    content, data, folder, _ = made
    other = replace(data, spec=replace(data.spec, front_end=front_end))
    assert shown in page.html(content, folder, other)


def test_examples_of_several_inputs_are_not_shown():
    test = [({"a": np.zeros((2, 3)), "b": np.zeros(2)}, np.zeros(2), np.ones(2))]
    assert examples.taken(test, [1], Normalisation()) == {}


def test_names_may_be_anything(tmp_path):
    names = ["$x_$", "数字", "a & b"]
    content, data = run(tmp_path, names)
    content["rows"][2]["layers"] = [{**NOISE, "layer": name} for name in ("$a_{$", "层", "_x")]
    content["stages"][1]["name"] = content["rows"][2]["stage"] = "_hidden"
    shutil.move(tmp_path / "prune", tmp_path / "_hidden")
    content["experiment"]["stages"][1]["name"] = "_hidden"
    text = page.html(content, tmp_path, data)
    assert "failed" not in text
    assert all(name in text for name in ("$a_{$", "层", "_hidden", "a &amp; b"))


def test_an_example_is_taken_as_it_was_before_normalisation():
    labels = np.arange(40) % 2
    data = splits(labels, ("a", "b"))
    pixels = np.random.default_rng(2).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    found = examples.taken(data.test, [3, 37], data.spec.normalisation)
    assert list(found) == [3, 37]
    for index, example in found.items():
        np.testing.assert_allclose(example, pixels[index], atol=1e-3)
    assert examples.taken(data.test, [], Normalisation()) == {}
