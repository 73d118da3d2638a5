"""Ids of objects: whatever a caller counts or names them by, in one form."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import Any

import numpy as np


def canonical_id(obj_id: Any) -> Hashable:
    """Return an object's id in the form in which sessions and results have it.

    Args:
        obj_id: An integer of any kind (also of NumPy, or a tensor with one), a text, or another hashable value.

    Returns:
        An ``int`` for integers, a ``str`` for texts, else the value itself.

    Raises:
        TypeError: If it is not hashable, or an array or tensor that is not one integer.
    """
    if type(obj_id) is int or type(obj_id) is str:
        return obj_id
    if isinstance(obj_id, str):
        return str(obj_id)
    try:
        return operator.index(obj_id)
    except (TypeError, RuntimeError):  # the latter of tensors without values
        pass
    if isinstance(obj_id, np.bool_):
        return int(obj_id)
    # Tensors are hashable, but by identity: two of the same value would be two objects. PyTorch itself is not imported
    # here, as the command line starts without it.
    if hasattr(obj_id, "shape") and hasattr(obj_id, "dtype") and not isinstance(obj_id, np.generic):
        raise TypeError(f"object id: expected one integer, got {type(obj_id).__name__} of shape {tuple(obj_id.shape)}")
    if isinstance(obj_id, np.generic):
        obj_id = obj_id.item()
    try:
        hash(obj_id)
    except TypeError:
        raise TypeError(
            f"object id: expected an integer, a text or another hashable value, got {type(obj_id).__name__}"
        ) from None
    named: Hashable = obj_id
    return named
