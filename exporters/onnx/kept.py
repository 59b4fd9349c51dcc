"""A 2:4 weight as the two kept values of each group of four and their places, and back, bit for bit.

Shapes: I in features, O out features, G groups of 4 of I, B bytes of two groups each. A byte's bits 0-1 and 2-3 are the
places of the two kept values of an even group, its bits 4-5 and 6-7 those of the group after it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmc.runtime.errors import InputError
from vlmc.runtime.kernels.packing import GROUP, places_of

Array = NDArray[Any]


def keep(weight_IO: Array) -> tuple[Array, Array]:
    """Return the kept values (2, G, O) in the weight's own type, and their places (B, O) as uint8.

    Raises:
        InputError: columns do not divide into groups of four, or a group holds more than two values that are not +0.0.
    """
    inputs, outputs = weight_IO.shape
    if inputs % GROUP:
        raise InputError(f"{inputs} in features cannot be divided into groups of {GROUP}")
    groups_G4O = np.ascontiguousarray(weight_IO).reshape(-1, GROUP, outputs)
    try:
        places_GO2 = places_of(np.moveaxis(_bits(groups_G4O) != 0, 1, -1))
    except InputError:
        raise InputError("a group of four holds more than two values that are not +0.0") from None
    nibbles_GO = (places_GO2[..., 0] | places_GO2[..., 1] << 2).astype(np.uint8)
    even_GO = np.pad(nibbles_GO, ((0, len(nibbles_GO) % 2), (0, 0)))
    values_G2O = np.take_along_axis(groups_G4O, np.moveaxis(places_GO2, -1, 1), 1)
    return np.ascontiguousarray(np.moveaxis(values_G2O, 1, 0)), even_GO[::2] | even_GO[1::2] << 4


def spread(values_2GO: Array, positions_BO: Array) -> Array:
    """Return the weight (I, O).

    Raises:
        InputError: the two do not belong together.
    """
    if values_2GO.ndim != 3 or len(values_2GO) != 2 or positions_BO.dtype != np.uint8:
        raise InputError("a packed weight is damaged: its values are not in pairs, or its positions not in bytes")
    _, groups, outputs = values_2GO.shape
    if positions_BO.shape != (-(-groups // 2), outputs):
        raise InputError(f"a packed weight is damaged: {positions_BO.shape} positions for values {values_2GO.shape}")
    nibbles_GO = np.stack([positions_BO & 15, positions_BO >> 4], 1).reshape(-1, outputs)[:groups]
    dense_G4O = np.zeros((groups, GROUP, outputs), values_2GO.dtype)
    for values_GO, places_GO in ((values_2GO[1], nibbles_GO >> 2), (values_2GO[0], nibbles_GO & 3)):
        for place in range(GROUP):
            np.copyto(dense_G4O[:, place], values_GO, where=places_GO == place)
    return dense_G4O.reshape(-1, outputs)


def _bits(values: Array) -> Array:
    """Return the bits of floating-point values: -0.0 is kept as any other."""
    return values.view({2: np.uint16, 4: np.uint32}[values.dtype.itemsize])
