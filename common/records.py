"""Records: small frozen values with named fields, like frozen dataclasses but without their weight.

The standard library's dataclasses import inspect and with it the compiler's tables, and compile methods for each class: a
quarter of the memory that a guest agent may take. A record's methods are written once, here; a class adds nothing but its
list of fields. To a type checker a record is a frozen dataclass.

Fields are the annotated names of a class, behind those of its bases. Annotations are never evaluated: each one makes a
field, and what it says is for readers and type checkers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, NoReturn, Optional, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform as dataclass_transform
else:

    def dataclass_transform(**_said_to_type_checkers: Any) -> Callable[[type], type]:
        """Tell type checkers that the classes below a class are dataclasses; nothing at run time."""
        return lambda base: base


R = TypeVar("R", bound="Record")

#: The default of a field that has none.
REQUIRED: Any = object()


class Field(NamedTuple):
    """What is declared of a field.

    :ivar default: the value where none is given; ``REQUIRED``: one must be given.
    :ivar factory: makes the default anew for each record, where it is a value that can be changed.
    :ivar secret: whether it is nobody's business, so that the record's repr leaves it out.
    :ivar private: whether the repr leaves it out although it is no secret from whoever gives it.
    :ivar meaning: what else the declaration says, for those who read ``fields_of``.
    """

    default: Any
    factory: Optional[Callable[[], Any]] = None
    secret: bool = False
    meaning: Any = None
    private: bool = False


def field(
    *,
    default: Any = REQUIRED,
    factory: Optional[Callable[[], Any]] = None,
    secret: bool = False,
    meaning: Any = None,
    private: bool = False,
) -> Any:
    """Declare a field of which a plain default, or none, does not say enough; see ``Field``."""
    return Field(default, factory, secret, meaning, private)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Record:
    """Base of all records::

        class Point(Record):
            x: int
            y: int = 0

        Point(1), Point(x=1, y=2)

    Equal are records of the same class with equal fields. A record has a hash if all its fields have one.
    """

    _fields: Mapping[str, Field] = {}
    _names: frozenset[str] = frozenset()
    _defaults: Mapping[str, Any] = {}
    _factories: tuple[tuple[str, Callable[[], Any]], ...] = ()

    def __init_subclass__(cls) -> None:
        fields: dict[str, Field] = {}
        for base in reversed(cls.__mro__[1:]):
            fields.update(vars(base).get("_fields", {}))
        for name in vars(cls).get("__annotations__", {}):
            fields[name] = _take_declaration(cls, name)
        cls._fields = fields
        cls._names = frozenset(fields)
        cls._defaults = {name: field.default for name, field in fields.items() if field.default is not REQUIRED}
        cls._factories = tuple((name, field.factory) for name, field in fields.items() if field.factory is not None)

    def __init__(self, /, *positional: Any, **named: Any) -> None:
        """Take the fields' values, in order or by name.

        :raises TypeError: a value is missing, is given twice, or belongs to no field; the error names fields, never values.
        """
        if positional:
            given = len(positional) + len(named)
            named.update(zip(self._fields, positional))
            if len(named) != given:
                raise TypeError(_too_many(self, given))
        if len(named) < len(self._names):
            named = {**self._defaults, **named}
            for name, factory in self._factories:
                named.setdefault(name, factory())
        if named.keys() != self._names:
            raise TypeError(_not_the_fields(self, named.keys()))
        self.__dict__.update(named)

    @classmethod
    def of_fields(cls: type[R], values: dict[str, Any]) -> R:
        """A record with exactly these *values*, one for each field; for callers that made them from the fields themselves.

        It costs a fraction of what looking at them once more does.
        """
        record = cls.__new__(cls)
        record.__dict__.update(values)
        return record

    def __setattr__(self, name: str, value: NoReturn) -> NoReturn:
        raise AttributeError(f"{_title(self)} is frozen: {name} can't be set; make another record instead")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{_title(self)} is frozen: {name} can't be deleted; make another record instead")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *map(vars(self).get, self._fields)))

    def __repr__(self) -> str:
        shown = (name for name, field in self._fields.items() if not (field.secret or field.private))
        return f"{_title(self)}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def fields_of(record_class: type[Record]) -> Mapping[str, Field]:
    """The fields of *record_class* by name, in order."""
    return record_class._fields


def _take_declaration(record_class: type[Record], name: str) -> Field:
    """What *record_class* itself says of its field *name*. A ``Field`` is no value: it does not stay in the class."""
    declared = vars(record_class).get(name, REQUIRED)
    if isinstance(declared, Field):
        delattr(record_class, name)
        return declared
    return Field(declared)


def _too_many(record: Record, given: int) -> str:
    if given > len(record._fields):
        return f"{_title(record)} has {len(record._fields)} fields, but {given} values were given"
    return f"{_title(record)}: a field was given both in order and by name"


def _not_the_fields(record: Record, names: AbstractSet[str]) -> str:
    if names - record._names:
        return f"{_title(record)} has no field named {_listed(names - record._names)}"
    return f"{_title(record)} lacks {_listed(record._names - names)}"


def _title(record: Record) -> str:
    return type(record).__qualname__


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
