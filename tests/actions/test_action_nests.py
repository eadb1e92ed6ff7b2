"""Nests of inputs and outputs: their leaves, the names of the leaves, and the action of each leaf."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gconv_ga.actions import (
    Invariant,
    Keypoints,
    Leaf,
    Points,
    ScalarField,
    as_actions,
    nest_leaves,
    pair_inputs,
    pair_leaves,
    rebuild_nest,
    require_plain,
)
from gconv_ga.groups import C4

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Result:
    """An output that is no mapping, tuple or list."""

    y: torch.Tensor


nests = st.recursive(
    st.integers() | st.none() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(nests)
def test_a_nest_is_rebuilt_from_its_leaves(nest):
    leaves = nest_leaves(nest, "nest")
    rebuilt = rebuild_nest(nest, iter([value for _, value in leaves]))
    assert rebuilt == nest
    assert type(rebuilt) is type(nest)


@given(nests)
def test_names_are_expressions_that_reach_the_leaves(nest):
    for name, value in nest_leaves(nest, "nest"):
        assert eval(name, {"nest": nest}) is value


def test_containers_are_new_and_keep_their_class():
    class Output(OrderedDict):
        """A mapping with an attribute besides its items, as some models return."""

        note = ""

    output = Output(logits=1, masks=[2, Pair(3, None)])
    output.note = "kept"
    rebuilt = rebuild_nest(output, iter([10, 20, 30, None]))
    assert type(rebuilt) is Output
    assert rebuilt.note == "kept"
    assert dict(rebuilt) == {"logits": 10, "masks": [20, Pair(30, None)]}
    assert dict(output) == {"logits": 1, "masks": [2, Pair(3, None)]}


def test_names_become_actions_at_every_depth():
    actions = as_actions({"a": "scalar", "b": ["points", ("invariant", Keypoints((3, 4)))]}, "in_action")
    assert actions == {"a": ScalarField(), "b": (Points(), (Invariant(), Keypoints((3, 4))))}


def test_one_action_stands_for_everything_below_it():
    leaves = pair_leaves({"a": [1, 2], "b": 3}, as_actions({"a": "points", "b": "scalar"}, "x"), "output", "x")
    assert leaves == [
        Leaf("output['a'][0]", 1, Points()),
        Leaf("output['a'][1]", 2, Points()),
        Leaf("output['b']", 3, ScalarField()),
    ]


def test_actions_may_have_keys_that_the_output_lacks():
    leaves = pair_leaves({"a": 1}, as_actions({"a": "scalar", "aux": "points"}, "x"), "output", "x")
    assert [leaf.name for leaf in leaves] == ["output['a']"]


@pytest.mark.parametrize(
    ("inputs", "actions", "names"),
    [
        ((1,), "scalar", ["input"]),
        ((1,), ("scalar",), ["inputs[0]"]),
        (([1, 2],), "scalar", ["input[0]", "input[1]"]),
        (([1, 2],), ("scalar", "points"), ["input[0]", "input[1]"]),
        (({"a": 1},), {"a": "scalar"}, ["input['a']"]),
        ((1, [2, 3]), ("scalar", ("points", "points")), ["inputs[0]", "inputs[1][0]", "inputs[1][1]"]),
        ((1, 2), "scalar", ["inputs[0]", "inputs[1]"]),
    ],
)
def test_inputs_have_their_actions(inputs, actions, names):
    assert [leaf.name for leaf in pair_inputs(inputs, as_actions(actions, "in_action"))] == names


@pytest.mark.parametrize(
    ("nest", "actions", "match"),
    [
        (
            {"a": 1, "b": 2},
            {"a": "scalar"},
            r"^in_action must be a mapping with the keys of x, \['a', 'b'\].*Give 'b' an",
        ),
        ({"a": {"c": 1}}, {"a": {"d": "scalar"}}, r"^in_action\['a'\] must be a mapping with the keys of x\['a'\]"),
        ([1, 2], ["scalar"], r"^in_action must be one action, or actions nested as x is, a list of 2, but got"),
        ((1, 2), {"a": "scalar"}, r"^in_action must be one action, or actions nested as x is, a tuple of 2, but got"),
        ({"a": 1}, ["scalar"], r"^in_action must be one action, or actions nested as x is, a dict, but got"),
        (1, ["scalar"], r"^in_action must be one action, or actions nested as x is, a int, but got"),
        ([1, [2, 3]], ["scalar", ["scalar"]], r"^in_action\[1\] must be one action, or .* x\[1\] is, a list of 2"),
    ],
)
def test_structures_that_do_not_match_are_refused(nest, actions, match):
    with pytest.raises(ValueError, match=match):
        pair_leaves(nest, as_actions(actions, "in_action"), "x", "in_action")


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        ({"a": "scaler"}, r"^out_action\['a'\] must be one of .* Did you mean 'scalar'\?$"),
        (["scalar", 3], r"^out_action\[1\] must be an action or its name"),
        (("scalar", [None]), r"^out_action\[1\]\[0\] must be an action or its name"),
    ],
)
def test_what_is_no_action_is_refused_by_its_place(actions, match):
    with pytest.raises(ValueError, match=match):
        as_actions(actions, "out_action")


def test_leaves_move_if_they_are_tensors():
    x = torch.arange(6).view(2, 3)
    assert torch.equal(Leaf("input", x, ScalarField()).moved(C4, 1), torch.rot90(x))
    assert Leaf("input", "a text", ScalarField()).moved(C4, 1) == "a text"
    with pytest.raises(ValueError, match=r"^input\[0\] does not fit its action Points\(\): x must be a tensor"):
        Leaf("input[0]", x[0], Points()).moved(C4, 1)


@pytest.mark.parametrize("value", [torch.zeros(1), None, True, 1, 0.5, 1j, "name", b"name"], ids=repr)
def test_plain_values_are_accepted(value):
    require_plain("output", value)


@pytest.mark.parametrize("value", [Result(torch.zeros(1)), torch.zeros(1).numpy(), {torch.zeros(1)}, print], ids=repr)
def test_what_may_hold_tensors_unseen_is_refused(value):
    with pytest.raises(ValueError, match=r"^output\['a'\] must be a tensor, None, a number or a string, but got"):
        require_plain("output['a']", value)
