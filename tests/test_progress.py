import pytest

from hllm import progress as shown


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told the time."""
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("RANK", raising=False)
    return now


def test_a_plain_line_says_how_much_is_done_and_left(clock, capsys):
    """After 20 s a quarter is done, so three quarters take 60 s more; two lines stand at least 15 s apart."""
    with shown.progress("items", 40) as advance:
        clock[0] += 20
        advance(10, "3 items/s")
        clock[0] += 5
        advance(10)
        assert capsys.readouterr().err == "items: 10 of 40 in 20 s, 60 s left  3 items/s\n"
        advance(20)
    assert capsys.readouterr().err == "items: 40 of 40 in 25 s\n"


def test_short_work_and_other_processes_show_nothing(clock, capsys, monkeypatch):
    with shown.progress("items", 2) as advance:
        clock[0] += 0.5
        advance(2)
    monkeypatch.setenv("RANK", "1")
    with shown.progress("items", 2) as advance:
        clock[0] += 60
        advance(1)
    assert capsys.readouterr().err == ""
