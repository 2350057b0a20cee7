"""Progress without a terminal is one line at the end, with a terminal a bar; the counts are the same."""

from __future__ import annotations

import io
import sys

import pytest

from pipeline.progress import progress


def test_without_a_terminal_one_line_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("scoring", 3) as bar:
        for _ in range(3):
            bar.advance()
            bar.note("loss 1.0")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("scoring: 3 images in ")
    assert err.count("\n") == 1


def test_with_a_terminal_the_bar_shows_count_rate_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    with progress("timing", 4, "rounds") as bar:
        bar.advance(4)
        bar.note("loss 0.5")
    assert bar.done == 4
    for text in ("timing", "4/4", "rounds/s", "loss 0.5"):
        assert text in screen.getvalue()


def test_an_error_inside_comes_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="boom"), progress("scoring", 3):
        raise ValueError("boom")
    assert capsys.readouterr().err == ""
