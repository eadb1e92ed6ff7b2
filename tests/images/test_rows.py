"""CSV as spreadsheets write it: one table in many forms is one table, and what is not is refused."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gconv_ga.images import read_split, read_table
from gconv_ga.images._rows import read_rows

ROWS = [["File", "note", "split"], ["a b.png", "x, y; z", "train"], ["c.png", "", "Val"]]
EXPECTED = [(2, {"file": "a b.png", "split": "train"}), (3, {"file": "c.png", "split": "Val"})]


def written(delimiter, end, quote, space):
    lines = []
    for row in ROWS:
        cells = [f'"{cell}"' if quote or delimiter in cell else cell for cell in row]
        lines.append(f"{space}{delimiter}{space}".join(cells) + space)
    return end.join(lines) + end


FORMS = list(itertools.product(",;\t", ("\n", "\r\n", "\r"), (True, False), ("", " ")))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_form_of_a_table_is_the_same_table(encoding, tmp_path):
    for form in FORMS:
        (tmp_path / "x.csv").write_bytes(written(*form).encode(encoding))
        assert read_rows(tmp_path / "x.csv", ("file", "split")) == EXPECTED, form


@pytest.mark.parametrize("text", ["sep=;\nfile;split\na;train\n", "file,split,,\n\na,train,,\n,,,\n"])
def test_what_spreadsheets_add_is_left_out(text, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    assert [row.cells for row in read_rows(tmp_path / "x.csv", ("file", "split"))] == [{"file": "a", "split": "train"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,split\ncaf\xe9.png,train\n", "It is not UTF-8: save it as CSV UTF-8"),
        (b"file,split,file\na,train,b\n", "It has the column file twice"),
        (b"file,split\na,train\na,b,train\n", "of 2 columns, .* Line 3 has 3 cells; put a cell that has"),
        (b'file,split\n"a,train\nb,train\n', "A quote that begins before line 3 is not closed"),
        (b"file,split\na,\n", "Line 2 has no split"),
        (b"file,split\na\n", "Line 2 has no split"),
        (b"file,split\n", "This one has no rows"),
        (b"name;split\na;train\n", "This one has name, split"),
        (b"\0\1\2", "This one has"),
    ],
)
def test_what_is_no_such_table_is_refused(content, message, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"^path must be a CSV .*{message}"):
        read_rows(tmp_path / "x.csv", ("file", "split"))


def test_a_cell_beyond_all_limits_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text(f"file,split\n{'a' * 200_000},train\n")
    with pytest.raises(ValueError, match=r"^path must be a CSV"):
        read_rows(tmp_path / "x.csv", ("file", "split"))


def split(folder, *rows, names=("00", "01"), note=None):
    (folder / "split.csv").write_text("\n".join(["file,split", *rows]))
    return read_split(folder / "split.csv", names, note=note)


@pytest.mark.parametrize(
    "other", ["00.png,train", "site2/00.png,train", "00.tif,train", r"C:\data\00.png,train", "00,test"]
)
def test_rows_that_contradict_one_another_are_refused(other, tmp_path):
    good = ["00.png,val", "01.png,train"]
    assert split(tmp_path, *good, "00.png,valid") == {"00": "val", "01": "train"}
    with pytest.raises(ValueError, match=r"puts each image into one part, .* Line 2 puts '00' into val, line 4 \("):
        split(tmp_path, *good, other)


def test_a_name_with_a_dot_is_itself_and_not_a_name_with_an_ending(tmp_path):
    rows = ["plate.0,val", "plate.1.png,train", "other/plate.0.png,val"]
    assert split(tmp_path, *rows, names=("plate.0", "plate.1")) == {"plate.0": "val", "plate.1": "train"}


def test_names_in_folders_are_told_apart(tmp_path):
    rows = ["s1/a.png,val", "s2/a.png,train"]
    assert split(tmp_path, *rows, names=("s1/a", "s2/a")) == {"s1/a": "val", "s2/a": "train"}


def test_rows_about_other_files_are_said(tmp_path):
    lines = []
    split(tmp_path, "00,val", "01,train", "07.png,val", "08.png,val", note=lines.append)
    assert lines == [f"{tmp_path / 'split.csv'}: 2 of its rows are about other files, such as '07.png'"]


def test_letters_composed_in_two_ways_are_one_name(tmp_path):
    assert split(tmp_path, "Mu\u0308ller.png,val", names=("M\u00fcller",)) == {"M\u00fcller": "val"}
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "Mu\u0308ller.png").touch()
    (tmp_path / "t.csv").write_text("image;mask\nimages\\M\u00fcller.png;masks/M\u00fcller.png\n", encoding="utf-8-sig")
    table = read_table(tmp_path / "t.csv")
    assert (table.problems, [pair.name for pair in table.pairs]) == ((), ["images/M\u00fcller"])
    assert table.pairs[0].image.is_file()


@given(st.binary(max_size=60) | st.text(',;"\t\r\n ab./\\\0', max_size=60).map(str.encode))
def test_whatever_is_in_a_file_ends_in_rows_or_a_refusal(tmp_path_factory, rest):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    for head in (b"", b"file,split\na,train\n", b"image;mask\n"):
        path.write_bytes(head + rest)
        for read in (lambda: read_split(path, ["a"]), lambda: read_table(path).pairs):
            with contextlib.suppress(ValueError):  # and nothing else
                assert len(read()) < 2
