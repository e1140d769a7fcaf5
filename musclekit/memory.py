"""Steps of a method that are worked out once and used again, while a `Memory` is in use.

A search over parameters repeats most of its work: a registration depends neither on the smoothness weight nor on the
fold. A method is written plainly, its dear steps are functions marked with `remembered`, and whoever runs it many times
does so inside ``with remembering(Memory()):``. Outside, a marked function is called as it is. Either way the results
are the same, bit by bit.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from musclekit.image import Case, Grid, Image, LabelMap, ProbabilityMap

__all__ = ["Memory", "fingerprint", "remembered", "remembering"]

P = ParamSpec("P")
R = TypeVar("R")

#: These never change once made, so each is read through only once.
_FROZEN = (Image, LabelMap, ProbabilityMap, Grid, Case)
_known: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
_current: ContextVar[Memory | None] = ContextVar("musclekit_memory", default=None)


class Memory:
    """Results of remembered steps: the most recently used ones, and all those that last.

    Parameters
    ----------
    max_bytes : int
        How much the results may take; those not used for longest are forgotten first.
    lasting : mapping of str to ndarray, optional
        Lasting results of an earlier run, as `lasting` gives them.

    Attributes
    ----------
    lasting : dict of str to ndarray
        Results of the steps marked as lasting, by key. Small; they can be written down and given to another process.
    computed : Counter of str
        How often each step was really worked out.
    """

    def __init__(self, max_bytes: int = 1 << 30, lasting: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.max_bytes = max_bytes
        self.lasting: dict[str, NDArray[Any]] = dict(lasting or {})
        self.computed: Counter[str] = Counter()
        self._results: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def _find(self, key: str) -> tuple[bool, Any]:
        with self._lock:
            if key in self.lasting:
                return True, self.lasting[key]
            if key in self._results:
                self._results.move_to_end(key)
                return True, self._results[key][0]
        return False, None

    def _keep(self, key: str, step: str, result: Any, lasts: bool) -> None:
        size = _size(result)
        with self._lock:
            self.computed[step] += 1
            if lasts:
                self.lasting[key] = result
            elif key not in self._results and size <= self.max_bytes:
                self._results[key] = (result, size)
                self._bytes += size
                while self._bytes > self.max_bytes:
                    self._bytes -= self._results.popitem(last=False)[1][1]


@contextmanager
def remembering(memory: Memory | None = None) -> Iterator[Memory]:
    """Use a memory for every remembered step that runs inside the ``with`` block, in this thread.

    Parameters
    ----------
    memory : Memory, optional
        Without one, the memory that is in use stays in use; where there is none, the block has one of its own. So a
        function whose own steps meet again and again is fast by itself, and faster inside a search.
    """
    memory = memory or _current.get() or Memory()
    token = _current.set(memory)
    try:
        yield memory
    finally:
        _current.reset(token)


def remembered(*, lasts: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a pure function as a step worth remembering.

    Parameters
    ----------
    lasts : bool
        The result is one small array (a transform) that takes long to find: it is never forgotten and outlives the
        process when the memory's owner writes it down.

    Returns
    -------
    decorator
        For a function whose arguments `fingerprint` understands. Arrays it returns are made read-only, whether or not
        a memory is in use.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        step = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            memory = _current.get()
            if memory is None:
                return _read_only(function(*args, **kwargs))
            key = fingerprint((step, args, kwargs))
            found, earlier = memory._find(key)
            if found:
                known: R = earlier
                return known
            result = _read_only(function(*args, **kwargs))
            memory._keep(key, step, result, lasts)
            return result

        return call

    return mark


def fingerprint(value: Any) -> str:
    """Return a hexadecimal digest of a value's content: the same for equal content, in every process.

    Parameters
    ----------
    value : object
        None, numbers, text, paths, enumerations, arrays, the project's images and cases, other dataclasses, methods
        (their class, parameters and what they learnt), and tuples, lists and mappings of these.

    Raises
    ------
    TypeError
        If it holds something else.
    """
    if isinstance(value, _FROZEN):
        if value not in _known:
            _known[value] = _digest(value)
        return _known[value]
    return _digest(value)


def _digest(value: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    """Bytes that stand for a value; the type is a part of them."""
    kind = type(value)
    yield f"<{kind.__module__}.{kind.__qualname__}>".encode()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects has no fingerprint")
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, Enum):
        yield value.name.encode()
    elif value is None or isinstance(value, (bool, int, float, str, Path, np.generic)):
        yield repr(value).encode()
    elif isinstance(value, Mapping):
        items = [(fingerprint(key), fingerprint(item)) for key, item in value.items()]
        yield repr(sorted(items)).encode()
    elif isinstance(value, (tuple, list)):
        yield repr([fingerprint(item) for item in value]).encode()
    elif is_dataclass(value):
        yield repr([(part.name, fingerprint(getattr(value, part.name))) for part in fields(value)]).encode()
    elif hasattr(value, "get_params"):
        # Parameters and, ending in an underscore, what it learnt.
        yield repr([(name, fingerprint(item)) for name, item in sorted(vars(value).items())]).encode()
    else:
        raise TypeError(f"a {kind.__qualname__} has no fingerprint")


def _read_only(result: R) -> R:
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
    elif isinstance(result, tuple):
        for item in result:
            _read_only(item)
    return result


def _size(value: Any) -> int:
    """Bytes of the arrays in a result, and a little for everything else."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (tuple, list)):
        return 64 + sum(_size(item) for item in value)
    if isinstance(value, Mapping):
        return 64 + sum(_size(item) for item in value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return 64 + sum(_size(getattr(value, part.name)) for part in fields(value))
    return 64
