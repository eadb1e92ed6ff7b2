"""Errors about an argument: their text, and the argument that they carry."""

import copy
import pickle

import pytest
import torch

from gconv_ga._validate import argument_of, as_int, as_pair, error_about, invalid, one_of, wrong_shape

ERRORS = {
    "invalid": lambda: invalid("stride", "a positive int", 0),
    "wrong_shape": lambda: wrong_shape("x", "[B, C]", torch.zeros(3)),
    "error_about": lambda: error_about("path", "a.b: wrong"),
    "as_int": lambda: raised(as_int, "steps", 0, minimum=1),
    "as_int of a bool": lambda: raised(as_int, "steps", True, minimum=1),
    "as_int of a float": lambda: raised(as_int, "steps", 2.5, minimum=1),
    "as_pair": lambda: raised(as_pair, "size", (1, 2, 3), minimum=1),
    "as_pair of small ones": lambda: raised(as_pair, "size", (1, 0), minimum=1),
    "one_of": lambda: raised(one_of, "mode", "maen", ("mean", "max")),
}
ARGUMENTS = {"invalid": "stride", "wrong_shape": "x", "error_about": "path", "as_int": "steps", "as_pair": "size"}


def raised(function, *arguments, **options):
    with pytest.raises(ValueError, match="must be") as caught:
        function(*arguments, **options)
    return caught.value


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_carries_its_argument_through_pickle_and_copy(name):
    error, expected = ERRORS[name](), ARGUMENTS.get(name.partition(" ")[0], "mode")
    for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(each) is ValueError
        assert each.argument == argument_of(each) == expected
        assert str(each) == str(error)


def test_other_errors_carry_none():
    assert argument_of(ValueError("stride must be 1")) is None
    assert argument_of(KeyError("x")) is None


def test_a_misspelt_option_suggests_the_closest():
    assert str(ERRORS["one_of"]()) == "mode must be one of 'mean', 'max', but got mode='maen'. Did you mean 'mean'?"
