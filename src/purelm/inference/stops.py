"""The ids that end what is written: none, one or several. Arrays of them are padded with -1, which is no id."""

from __future__ import annotations

from typing import Any

import numpy as np

# As callers give them.
StopIds = int | tuple[int, ...] | None


def stop_tuple(stop_id: StopIds) -> tuple[int, ...]:
    """The ids, () where there is none."""
    if stop_id is None:
        return ()
    return tuple(map(int, stop_id)) if isinstance(stop_id, tuple) else (int(stop_id),)


def stop_array(stop_id: StopIds, width: int = 1) -> np.ndarray:
    """int32 [S]: the ids, and -1 up to `width` of them."""
    ids = stop_tuple(stop_id)
    return np.array([*ids, *[-1] * (width - len(ids))], np.int32)


def is_stop(ids: Any, stop_ids_S: Any) -> Any:
    """Bool, for each of `ids` [...]: whether it is one of stop_ids_S, [S] or [..., S]."""
    return (ids[..., None] == stop_ids_S).any(axis=-1)


def padding(stop_id: StopIds) -> int:
    """What stands after the end: the first stop id, or 0 where there is none."""
    return (*stop_tuple(stop_id), 0)[0]
