"""Spreadsheets are read as text, with ids as they are shown."""

import sys
import zipfile
from xml.sax.saxutils import escape

import pytest

from hllm.data.reading.form import Form
from hllm.data.reading.tables import read_table
from hllm.errors import DataError, HllmWarning, MissingExtraError

ROWS = [("item_id", "title", "price"), ("007", "Red & blue", 1.5), (None, None, None), (12345678901234, 'a "b", c', 2)]


def book(path, *sheets):
    """Write sheets of texts and numbers as the smallest .xlsx."""
    types, links, names = "", "", ""
    with zipfile.ZipFile(path, "w") as out:
        for number, rows in enumerate(sheets, start=1):
            lines = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
            out.writestr(f"xl/worksheets/sheet{number}.xml", f'<worksheet xmlns="{_MAIN}"><sheetData>{lines}</sheetData></worksheet>')  # fmt: skip
            types += f'<Override PartName="/xl/worksheets/sheet{number}.xml" ContentType="{_TYPE}.worksheet+xml"/>'
            links += f'<Relationship Id="r{number}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{number}.xml"/>'
            names += f'<sheet name="Sheet{number}" sheetId="{number}" r:id="r{number}"/>'
        out.writestr("[Content_Types].xml", f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>{types}</Types>')  # fmt: skip
        out.writestr("_rels/.rels", f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>')  # fmt: skip
        out.writestr("xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{names}</sheets></workbook>')  # fmt: skip
        out.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>')  # fmt: skip
    return path


_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def _cell(value):
    if value is None:
        return "<c/>"
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f"<c><v>{value}</v></c>"


def test_cells_are_texts_as_they_are_shown(tmp_path):
    pytest.importorskip("fastexcel")
    frame = read_table(book(tmp_path / "items.xlsx", ROWS), name="items")
    assert frame.columns == ["item_id", "title", "price"]
    assert frame.rows() == [("007", "Red & blue", "1.5"), ("12345678901234", 'a "b", c', "2")]


def test_no_header_and_more_sheets(tmp_path):
    pytest.importorskip("fastexcel")
    path = book(tmp_path / "items.xlsx", [(1, "Park"), (2, "Hall")], [("x",)])
    with pytest.warns(HllmWarning, match=r"items\.xlsx has 2 sheets; the first, 'Sheet1', is read"):
        assert read_table(path, Form(columns=("item_id", "title")), name="items").rows() == [
            ("1", "Park"),
            ("2", "Hall"),
        ]
    with pytest.raises(DataError, match=r"items\.xlsx, line 1: 1, Park looks like data"):
        read_table(path, name="items")


def test_what_is_no_spreadsheet_and_no_library(tmp_path, monkeypatch):
    (tmp_path / "a.xlsx").write_bytes(b"item_id,title\n")
    pytest.importorskip("fastexcel")
    with pytest.raises(DataError, match=r"a\.xlsx cannot be read as a spreadsheet"):
        read_table(tmp_path / "a.xlsx", name="items")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtraError, match=r'reading .*b\.xlsx needs the package .*: pip install "hllm\[excel\]"'):
        read_table(book(tmp_path / "b.xlsx", ROWS), name="items")
