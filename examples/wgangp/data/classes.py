# SPDX-License-Identifier: Apache-2.0
"""Classes of pictures: their order and numbers, what is held out of them, and their names."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import Any
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np

from support.errors import UserError
from support.errors import list_some
from support.errors import printable
from support.errors import require

TEST_DIVISOR = 10  # one picture in ten is held out for tests
SHOWN = 20  # largest number of classes that a line names


def number_classes(folders: Sequence[str]) -> Tuple[List[str], np.ndarray]:
    """Numbers the classes of pictures in natural order: 10 follows 9, and case does not count.

    Args:
        folders: The name of each picture's class.

    Returns:
        The names of the classes, by number, and the number of each picture's class, int64 [N].
    """
    # A name with accents can be spelled in two ways, and file systems and archives differ.
    folders = [unicodedata.normalize("NFC", folder) for folder in folders]
    names = sorted(set(folders), key=_natural_key)
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[folder] for folder in folders], "int64")


def _natural_key(name: str) -> Tuple[List[Any], str]:
    """A key that sorts by texts and whole numbers in turn; the name itself decides a tie."""
    parts: List[Any] = re.split("([0-9]+)", name.casefold())
    for place in range(1, len(parts), 2):
        digits = parts[place].lstrip("0")
        parts[place] = len(digits), digits  # int() refuses very long numbers
    return parts, name


def hold_out(labels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Splits pictures at random into training and test pictures, one in ten of each class.

    The result depends on the labels only. A class keeps at least one picture for the training;
    so a class of one picture has no test picture. If all classes have one, the split ignores
    them.

    Args:
        labels: The class of each picture, int64 [N].

    Returns:
        Rows of the training set and rows of the test set.
    """
    counts = np.bincount(labels)
    if counts.max() == 1:
        labels, counts = np.zeros_like(labels), np.array([len(labels)])
    order = np.random.default_rng(0).permutation(len(labels))
    by_class = np.argsort(labels[order], kind="stable")
    ranks = np.empty_like(order)  # of each row among those of its class
    ranks[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_test = ranks < _count_tests(counts)[labels[order]]
    return order[~is_test], order[is_test]


def _count_tests(counts: np.ndarray) -> np.ndarray:
    """The number of test pictures of each class, given its number of pictures.

    It is a tenth, rounded down. The pictures that are then missing to a tenth of all come from the
    classes with the largest remainders, one from each.
    """
    tests, rest = np.divmod(counts, TEST_DIVISOR)
    rest[counts == 1] = 0
    missing = counts.sum() // TEST_DIVISOR - tests.sum()
    largest = np.argsort(-rest, kind="stable")[:missing]
    tests[largest[rest[largest] > 0]] += 1
    return tests


def describe_classes(
    names: Sequence[str], train_labels: np.ndarray, test_labels: np.ndarray
) -> Tuple[str, str]:
    """Describes the classes of a data set.

    Args:
        names: The names of the classes, by number.
        train_labels: Labels of the training set.
        test_labels: Labels of the test set.

    Returns:
        A line with the number, name and size of the classes, and a warning that names classes
        without test pictures (or without training pictures); "" if there are none.
    """
    train, test = (np.bincount(x, minlength=len(names)) for x in (train_labels, test_labels))
    if list(names) == [""]:
        return f"classes: none ({train[0]} training pictures, {test[0]} test)", ""
    texts = [
        f"{number} = {_show(name)} ({train[number]} training pictures, {test[number]} test)"
        for number, name in enumerate(names[:SHOWN])
    ]
    small, sizes = np.flatnonzero((train == 0) | (test == 0)), train + test
    shown = [f"{_show(names[number])} ({sizes[number]})" for number in small[:SHOWN]]
    warning = (
        f"{len(small)} of {len(names)} classes have too few pictures to be in both the training "
        f"and the test set: {list_some(shown, SHOWN, len(small))}. Give each class at least "
        f"{TEST_DIVISOR}."
    )
    return f"classes: {list_some(texts, SHOWN, len(names))}", warning if len(small) else ""


def _show(name: str) -> str:
    return printable(name, 60) or "''"


def list_names(names: Sequence[str]) -> str:
    """Writes the names of classes, or of the first of them, as a list."""
    return list_some([_show(name) for name in names[:SHOWN]], SHOWN, len(names))


def require_same(former: Sequence[str], names: Sequence[str], where: str) -> None:
    """Refuses a data set of other classes than those that a network was trained with.

    Args:
        former: The network's classes, by number.
        names: The classes of the data set, by number.
        where: The file of the network, for the message.

    Raises:
        UserError: Names the first difference.
    """
    if list(former) == list(names):
        return
    pairs = enumerate(itertools.zip_longest(former, names))
    number, pair = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    old, new = ("absent" if name is None else _show(name) for name in pair)
    raise UserError(
        f"{where} was trained with other classes than those of DATA.data_path: class {number} was "
        f"{old} and is {new}. It knows {len(former)} classes ({list_names(former)}), and the data "
        f"have {len(names)} ({list_names(names)}). Name pictures of the same classes."
    )


def find_label(label: Any, names: Sequence[str], count: int, key: str) -> Optional[int]:
    """Returns the number of the class that a setting names.

    A name counts before a number. If names of classes are whole numbers, a whole number is always
    a name: of folders 1 to 9, 3 is the folder 3, and 0 is refused.

    Args:
        label: The setting's value: a name or a number; None for no class.
        names: The names of the classes, by number; empty if they have none.
        count: The number of classes; 0 if the network is not conditional.
        key: The setting, for the message.

    Raises:
        UserError: If there is no such class, or there are none.
    """
    if label is None:
        return None
    text = str(label).lower() if isinstance(label, bool) else str(label)
    require(
        count > 0, f"{key}={printable(text)}: the generator is not conditional. Leave {key} out."
    )
    require(
        len(names) in (0, count),
        f"{key}={printable(text)}: the weights name {len(names)} classes, and their network has "
        f"{count}. They are damaged: name others.",
    )
    name = unicodedata.normalize("NFC", text)
    if name in names:
        return list(names).index(name)
    is_number = type(label) is int and 0 <= label < count
    if is_number and not any(re.fullmatch("[0-9]+", name) for name in names):
        return label
    expected = f"must be a whole number from 0 to {count - 1}"
    if names:
        expected = f"is not a class. The classes are {list_names(names)}"
    raise UserError(f"{key}={printable(text)} {expected}.")
