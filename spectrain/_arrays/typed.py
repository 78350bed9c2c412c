"""For type checkers: a function of matrices gives a tensor for a tensor and an array for an array.

At run time nothing here does anything.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeAlias, TypeVar, overload

import numpy as np
from torch import Tensor

Held = TypeVar("Held")
"""The kind of array that a result holds."""
Ndarray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

if TYPE_CHECKING:
    from typing import Generic as Generic

    P = ParamSpec("P")
    OfTensor = TypeVar("OfTensor", covariant=True)
    OfArray = TypeVar("OfArray", covariant=True)
    Otherwise = TypeVar("Otherwise", covariant=True)

    class Door(Protocol[P, OfTensor, OfArray, Otherwise]):
        """A function whose result depends on what its first argument is; what is neither kind may be anything."""

        @overload
        def __call__(self, X: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> OfTensor: ...
        @overload
        def __call__(self, X: Ndarray, /, *args: P.args, **kwargs: P.kwargs) -> OfArray: ...
        @overload
        def __call__(self, X: Any, /, *args: P.args, **kwargs: P.kwargs) -> Otherwise: ...

    class DoorOfLists(Protocol[P]):
        """The same of a matrix or a list of matrices."""

        @overload
        def __call__(self, X: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...
        @overload
        def __call__(self, X: Ndarray, /, *args: P.args, **kwargs: P.kwargs) -> Ndarray: ...
        @overload
        def __call__(self, X: Sequence[Tensor], /, *args: P.args, **kwargs: P.kwargs) -> list[Tensor]: ...
        @overload
        def __call__(self, X: Sequence[Ndarray], /, *args: P.args, **kwargs: P.kwargs) -> list[Ndarray]: ...
        @overload
        def __call__(self, X: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    class DoorOfFunction(Protocol[P]):
        """The same of a function of singular values and a matrix."""

        @overload
        def __call__(
            self, f: Callable[[Tensor], Tensor], X: Tensor, /, *args: P.args, **kwargs: P.kwargs
        ) -> Tensor: ...
        @overload
        def __call__(
            self, f: Callable[[Tensor], Tensor], X: Ndarray, /, *args: P.args, **kwargs: P.kwargs
        ) -> Ndarray: ...
        @overload
        def __call__(self, f: Callable[[Tensor], Tensor], X: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def results(
        tensors: type[OfTensor], arrays: type[OfArray], others: type[Otherwise]
    ) -> Callable[[Callable[Concatenate[Any, P], Any]], Door[P, OfTensor, OfArray, Otherwise]]: ...
    def alike(function: Callable[Concatenate[Any, P], Any]) -> Door[P, Tensor, Ndarray, Any]: ...
    def alike_or_lists(function: Callable[Concatenate[Any, P], Any]) -> DoorOfLists[P]: ...
    def alike_to_second(function: Callable[Concatenate[Any, Any, P], Any]) -> DoorOfFunction[P]: ...

else:

    class _Subscripted:
        """A class that is the same whatever stands in its brackets."""

        def __class_getitem__(cls, kind):
            return cls

    class _OfAnyKind:
        """``Generic[Held]`` as a base adds to a NamedTuple nothing, and to another class brackets that do nothing.

        Named tuples that are generic at run time are not understood by all that look at annotations.
        """

        def __getitem__(self, kind):
            return self

        def __mro_entries__(self, bases):
            return () if NamedTuple in bases else (_Subscripted,)

    Generic = _OfAnyKind()

    def alike(function):
        """Decorate a function whose result is of the kind of its first argument."""
        return function

    def results(tensors, arrays, others):
        """Decorate a function whose result is of these types, as its first argument is."""
        return alike

    alike_or_lists = alike_to_second = alike
