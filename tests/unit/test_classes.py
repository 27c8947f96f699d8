# SPDX-License-Identifier: Apache-2.0
"""Classes of pictures: their order, what is held out of them, and how a setting names them."""

import numpy as np
import pytest

from data import classes
from support.errors import UserError


@pytest.mark.parametrize(
    "names",
    [
        [str(number) for number in range(12)],
        ["1", "02", "3", "010", "100"],
        ["img2", "img10", "Img11", "img100"],
        ["v1.9", "v1.10", "v2.0", "w"],
        ["", "2", "a", "B", "c", "\udcff"],  # the last one is not UTF-8 on the disk
        ["Cat", "cat", "dog"],  # two folders where case counts
        ["7", "9" * 5000],  # int() refuses so long a number
        ["07", "7"],
    ],
)
def test_classes_have_natural_order(names):
    folders = [names[number] for number in np.random.default_rng(0).permutation(len(names))]
    found, labels = classes.number_classes([*folders, names[0]])
    assert found == names
    assert [names[label] for label in labels] == [*folders, names[0]]
    assert labels.dtype == np.int64


def test_a_class_has_one_spelling():
    """macOS spells an accent as a character of its own."""
    assert classes.number_classes(["e\u0301", "\u00e9"])[0] == ["\u00e9"]


def hold_out(*counts):
    """Numbers of training and of test pictures by class, with the pictures in random order."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    train, test = classes.hold_out(labels)
    assert sorted([*train, *test]) == list(range(len(labels)))
    return [np.bincount(labels[rows], minlength=len(counts)).tolist() for rows in (train, test)]


@pytest.mark.parametrize(
    ("counts", "test"),
    [
        ((100, 50), [10, 5]),
        ((10, 20, 30), [1, 2, 3]),
        ((99, 1), [10, 0]),  # a class of one picture has it for the training
        ((9, 9, 2), [1, 1, 0]),  # the largest remainders
        ((8, 8, 8), [1, 1, 0]),
        ((1000, 2, 13), [100, 0, 1]),
        ((9,) * 100, [1] * 90 + [0] * 10),
        ((50, *(1,) * 50), [5] + [0] * 50),  # no other picture can be missed
        ((19, 2, 2, 2), [2, 0, 0, 0]),
    ],
)
def test_one_picture_in_ten_of_each_class_is_held_out(counts, test):
    train, found = hold_out(*counts)
    assert found == test
    assert train == [count - part for count, part in zip(counts, test)] and min(train) >= 1


def test_classes_of_one_picture_each_are_split_as_one():
    train, test = hold_out(*(1,) * 25)
    assert sum(train) == 23 and sum(test) == 2


@pytest.mark.parametrize("count", [10, 15, 3781])
def test_a_set_of_one_class_is_split_as_in_former_versions(count):
    order = np.random.default_rng(0).permutation(count)
    train, test = classes.hold_out(np.zeros(count, "int64"))
    np.testing.assert_array_equal(train, order[count // 10 :])
    np.testing.assert_array_equal(test, order[: count // 10])


def test_which_pictures_are_held_out_depends_on_the_labels_alone():
    labels = np.repeat([0, 1, 2], [40, 30, 30])
    first, second = classes.hold_out(labels), classes.hold_out(labels.copy())
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)
    # They are drawn from the whole of a class, and are not in the order of the classes.
    assert (np.diff(labels[first[1]]) < 0).any() and first[1].max() > 90


def test_classes_are_described_in_one_line():
    train, test = np.repeat([0, 1, 2], [123, 4, 1]), np.repeat([0], [13])
    line, warning = classes.describe_classes(["cat", "", "x\ny"], train, test)
    assert line == (
        "classes: 0 = cat (123 training pictures, 13 test), "
        "1 = '' (4 training pictures, 0 test), 2 = x\\ny (1 training pictures, 0 test)"
    )
    assert warning == (
        "2 of 3 classes have too few pictures to be in both the training and the test set: "
        "'' (4), x\\ny (1). Give each class at least 10."
    )
    assert classes.describe_classes(["cat"], train[:9] * 0, test)[1] == ""
    assert classes.describe_classes([""], train[:9] * 0, test) == (
        "classes: none (9 training pictures, 13 test)",
        "",
    )


def test_the_line_of_many_classes_is_bounded():
    names, labels = [f"{number:05}" for number in range(10_000)], np.arange(10_000)
    line, warning = classes.describe_classes(names, labels, labels[:0])
    assert "19 = 00019 (1 training pictures, 0 test) and 9980 more" in line
    assert "10000 of 10000 classes" in warning and "and 9980 more" in warning
    assert len(line) < 2000 and len(warning) < 1000


@pytest.mark.parametrize(
    ("former", "names", "difference"),
    [
        (["cat", "dog"], ["cat", "owl"], "class 1 was dog and is owl"),
        (["cat", "dog"], ["cat"], "class 1 was dog and is absent"),
        (["cat"], ["cat", "dog"], "class 1 was absent and is dog"),
        (["cat", "dog"], ["dog", "cat"], "class 0 was cat and is dog"),
        (["cat"], [], "class 0 was cat and is absent"),
    ],
)
def test_other_classes_are_refused_by_name(former, names, difference):
    classes.require_same(former, list(former), "x.npz")
    with pytest.raises(UserError, match=f"x.npz was trained with other classes.*{difference}") as e:
        classes.require_same(former, names, "x.npz")
    assert r"\n" not in str(e.value)


@pytest.mark.parametrize(
    ("label", "names", "number"),
    [
        (None, ["cat"], None),
        ("dog", ["cat", "dog"], 1),
        (1, ["cat", "dog"], 1),
        (1, [], 1),
        (3, ["1", "3", "10"], 1),  # a folder's name counts before its number
        (10, ["1", "3", "10"], 2),
        ("007", ["007", "8"], 0),
        (1.5, ["1.0", "1.5"], 1),
        (True, ["true"], 0),
        ("e\u0301", ["\u00e9"], 0),
    ],
)
def test_a_label_is_a_name_or_a_number(label, names, number):
    assert classes.find_label(label, names, len(names) or 5, "INFER.label") == number


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (0, ["1", "2"], "INFER.label=0 is not a class. The classes are 1, 2."),
        (1, ["0", "cat"], "INFER.label=1 is not a class. The classes are 0, cat."),
        ("owl", ["cat", "dog"], "INFER.label=owl is not a class. The classes are cat, dog."),
        ("Cat", ["cat", "dog"], "INFER.label=Cat is not a class"),
        (-1, ["cat", "dog"], "INFER.label=-1 is not a class"),
        (5, [], "INFER.label=5 must be a whole number from 0 to 4"),
        ("cat", [], "INFER.label=cat must be a whole number from 0 to 4"),
        (True, [], "INFER.label=true must be a whole number"),
        (1.0, [], "INFER.label=1.0 must be a whole number"),
    ],
)
def test_a_label_that_is_no_class_is_refused(label, names, message):
    with pytest.raises(UserError) as error:
        classes.find_label(label, names, len(names) or 5, "INFER.label")
    assert message in str(error.value)


def test_names_of_another_number_of_classes_are_refused():
    with pytest.raises(UserError, match="weights name 3 classes, and their network has 2"):
        classes.find_label("owl", ["cat", "dog", "owl"], 2, "INFER.label")


def test_a_label_needs_a_conditional_generator():
    with pytest.raises(UserError, match="INFER.label=cat: the generator is not conditional"):
        classes.find_label("cat", ["cat"], 0, "INFER.label")
