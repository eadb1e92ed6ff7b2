"""The record of what is done: kept across programs, bound to settings and sources, whatever a kill leaves of it."""

import os

import pytest

from gconv_ga._journal import Journal, source_stamp

SETTINGS = {"checkpoint": "a", "tile": 256, "of": (1, None)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "done.jsonl"


def test_what_is_added_is_found_by_the_next_program(file):
    Journal(file, SETTINGS).add("a/ü", [[3, 4]], {"score": 0.1})
    journal = Journal(file, SETTINGS)
    assert journal.names() == ["a/ü"]
    assert journal.result("a/ü", [[3, 4]]) == {"score": 0.1}
    assert journal.result("a/ü", [(3, 4)]) == {"score": 0.1}
    assert journal.result("b", [[3, 4]]) is None


@pytest.mark.parametrize("other", [[[3, 5]], [[2, 4]], [[3, 4], [3, 4]], []], ids=str)
def test_another_source_is_not_done(other, file):
    Journal(file, SETTINGS).add("a", [[3, 4]])
    assert Journal(file, SETTINGS).result("a", other) is None


@pytest.mark.parametrize("other", [{"checkpoint": "b"}, {"tile": 128}, {"more": None}], ids=str)
def test_other_settings_begin_anew_for_good(other, file):
    Journal(file, SETTINGS).add("a", [[3, 4]])
    assert Journal(file, {**SETTINGS, **other}).names() == []
    assert Journal(file, SETTINGS).names() == []


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_is_cut_off_is_ignored_and_does_not_spoil_the_next(cut, file):
    journal = Journal(file, SETTINGS)
    journal.add("a", [[3, 4]])
    journal.add("b", [[5, 6]])
    file.write_bytes(file.read_bytes()[:-cut])
    again = Journal(file, SETTINGS)
    assert "a" in again.names()
    assert "b" not in again.names() or cut == 1  # without its end of line it is whole
    again.add("c", [[7, 8]])
    assert {"a", "c"} <= set(Journal(file, SETTINGS).names())


def test_what_is_no_journal_counts_for_nothing(file):
    file.write_bytes(b'[1]\n\xff\n{"name": "a"}\n')
    assert Journal(file, SETTINGS).names() == []


def test_two_programs_add_to_one_file(file):
    one, two = Journal(file, SETTINGS), Journal(file, SETTINGS)
    one.add("a", [[1, 1]])
    two.add("b", [[1, 1]])
    one.add("c", [[1, 1]])
    assert sorted(Journal(file, SETTINGS).names()) == ["a", "b", "c"]
    one.remove()
    two.remove()
    assert not file.exists()


def test_a_stamp_changes_with_size_and_date(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for each in (one, two):
        each.write_bytes(b"content")
        os.utime(each, ns=(5, 7))
    assert source_stamp(one, two) == [[7, 7], [7, 7]]
    os.utime(one, ns=(5, 8))
    two.write_bytes(b"other content")
    os.utime(two, ns=(5, 7))
    assert source_stamp(one, two) == [[7, 8], [13, 7]]
    with pytest.raises(ValueError, match="No such file"):
        source_stamp(tmp_path / "three")
