"""Help texts of flags that wrap where the screen ends, instead of where a line of the source does."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from typing import Annotated, Any


@functools.cache
def with_help(kind: type) -> type:
    """A dataclass like ``kind``, whose fields tell tyro what their docstrings say, as one paragraph.

    A default of nothing is not told beside what the text says of it, nor that None may be typed.
    """
    import tyro

    texts, hints = _texts(kind), typing.get_type_hints(kind, include_extras=True)
    fields = []
    for field in dataclasses.fields(kind):
        told: dict[str, Any] = {"help": texts[field.name]} if field.name in texts else {}
        if field.default in (None, (), ""):
            told |= {"help_behavior_hint": "", "metavar": _metavar(hints[field.name])}
        fields.append((field.name, Annotated[hints[field.name], tyro.conf.arg(**told)], _again(field)))
    params = kind.__dataclass_params__  # type: ignore[attr-defined]
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=params.frozen)
    made.__doc__ = kind.__doc__
    return made


def as_kind(kind: type, found: Any) -> Any:
    """The same values in ``kind``, or in what :func:`with_help` made of it."""
    return kind(**{field.name: getattr(found, field.name) for field in dataclasses.fields(found)})


def _again(field: "dataclasses.Field[Any]") -> Any:
    return dataclasses.field(default=field.default, default_factory=field.default_factory, kw_only=field.kw_only)


def _metavar(hint: Any) -> str | None:
    """What stands for a value, without the None that is the same as to leave the flag out; None: as tyro says."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else ()
    words = [kind.__name__.upper() for kind in kinds if kind in (int, float, str)]
    return "|".join(words) if len(words) == len(kinds) - 1 else None


def _texts(kind: type) -> dict[str, str]:
    """The docstring of each field, of the class where it stands last."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each) and (source := _source(each)):
            body = ast.parse(textwrap.dedent(source)).body[0]
            assert isinstance(body, ast.ClassDef)
            for field, text in zip(body.body, body.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                    found[field.target.id] = " ".join(ast.literal_eval(text.value).split())  # type: ignore[attr-defined]
    return found


def _source(kind: type) -> str:
    """The source of a class; nothing of one that was made by a program, which says its help itself."""
    try:
        return inspect.getsource(kind)
    except OSError:
        return ""


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
