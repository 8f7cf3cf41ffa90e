from hllm.reports.text import markdown_table, text_table


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_with_their_text():
    lines = text_table(("name", "users", ""), [("a", "1,000", "x"), ("longer", "7", "")], align="lrl", indent=2)
    assert lines == [
        "  name    users",
        "  a       1,000  x",
        "  longer      7",
    ]


def test_the_last_letter_holds_for_all_columns_that_follow():
    assert text_table(("k", "one", "two"), [("x", "1", "2")], align="lr") == ["k  one  two", "x    1    2"]


def test_without_headings_there_is_no_line_of_them():
    assert text_table((), [("a", "b"), ("long", "c")]) == ["a     b", "long  c"]


def test_a_bar_in_a_cell_does_not_end_it_in_markdown():
    assert markdown_table(("", "n"), [("a|b", "1")]) == ["|  | n |", "| --- | --- |", r"| a\|b | 1 |"]
