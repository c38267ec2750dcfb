"""Scalar types of the resource: durations, sizes, percentages, sources, and their CEL rules.

Every check exists twice, on purpose: as CEL in the CRD, so that a mistake is refused at
``kubectl apply``, and in Python, so that an object that never met this CRD (a replayed trace,
an older CRD) fails to parse instead of being misread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

JsonSchema = dict[str, Any]

_DURATION = re.compile(r"^(?=\d)(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?$")
_DURATION_CEL = "^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$"
_SIZE = re.compile(r"^([1-9][0-9]{0,9})(Ki|Mi|Gi)?$")
_SIZE_FACTOR = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_FIRST_YEAR, _LAST_YEAR = 1970, 9000
_SURGE_PERCENT = re.compile(r"([0-9]{1,2}|100)%")


def _in_calendar(when: datetime) -> datetime:
    if not _FIRST_YEAR <= when.year <= _LAST_YEAR:
        raise ValueError(f"must be a time of the years {_FIRST_YEAR} to {_LAST_YEAR}")
    return when


Time = Annotated[AwareDatetime, AfterValidator(_in_calendar)]
"""A time with a time zone, to which a duration can be added and which can be written anywhere."""


class ResourceModel(BaseModel):
    """Base of every model: immutable, camelCase outside, unknown keys ignored when reading."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )


@dataclass(frozen=True, slots=True)
class Cel:
    """A CEL rule of the CRD, as an annotation on a field or in ``rules()`` of a model."""

    rule: str
    """True for valid values; ``self`` is the value annotated."""
    message: str = ""
    """A sentence that names the field and the fix."""
    message_expression: str = ""
    """CEL that builds the sentence from the offending value; wins over ``message``."""

    def as_schema(self) -> dict[str, str]:
        """Return the entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.rule, "message": self.message}
        if self.message_expression:
            entry["messageExpression"] = self.message_expression
        return entry

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Append the rule to whatever the annotated type generates."""
        schema = dict(handler(core))
        schema["x-kubernetes-validations"] = [
            *schema.get("x-kubernetes-validations", []),
            self.as_schema(),
        ]
        return schema


@dataclass(frozen=True, slots=True)
class SchemaExtra:
    """Extra keywords of the CRD schema (``x-kubernetes-list-type`` and the like)."""

    keywords: tuple[tuple[str, Any], ...]

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Add the keywords to whatever the annotated type generates."""
        return {**handler(core), **dict(self.keywords)}


def rules(*cel: Cel) -> JsonSchema:
    """Return ``json_schema_extra`` of a model's config: its cross-field rules."""
    return {"x-kubernetes-validations": [rule.as_schema() for rule in cel]}


SPARSE = "x-llmfleet-sparse"
"""Marks a model below which the CRD carries no empty defaults (never written to the CRD)."""


ATOMIC = SchemaExtra((("x-kubernetes-list-type", "atomic"),))
SET = SchemaExtra((("x-kubernetes-list-type", "set"),))
ANYTHING = SchemaExtra((("x-kubernetes-preserve-unknown-fields", True),))
"""An object whose keys the CRD does not describe (frozen plans, numbers of a decision)."""


def list_map(*keys: str) -> SchemaExtra:
    """Return the keywords of a list whose items are identified by ``keys``."""
    return SchemaExtra(
        (("x-kubernetes-list-type", "map"), ("x-kubernetes-list-map-keys", list(keys)))
    )


def parse_duration_seconds(text: str) -> int:
    """Return the whole seconds of a duration of hours, minutes and seconds.

    >>> parse_duration_seconds("1h30m"), parse_duration_seconds("300s")
    (5400, 300)

    Raises:
        ValueError: the text is not such a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a duration such as 300s, 5m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_size_bytes(text: str) -> int:
    """Return the bytes of a size in binary units.

    >>> parse_size_bytes("8Mi")
    8388608

    Raises:
        ValueError: the text is not such a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is not a size such as 512Ki, 8Mi or 1Gi")
    return int(match[1]) * _SIZE_FACTOR[match[2]]


def parse_percent(text: str) -> float:
    """Return the share, 0 to 1 (or more), that a percentage stands for.

    >>> parse_percent("20%")
    0.2

    Raises:
        ValueError: the text is not a percentage.
    """
    number, sign, rest = text.partition("%")
    if not sign or rest:
        raise ValueError(f"'{text}' is not a percentage such as 20%")
    return float(number) / 100


@dataclass(frozen=True, slots=True)
class DurationBetween:
    """Bounds of a duration, inclusive; one CEL rule says shape and bounds in one sentence."""

    minimum: str
    maximum: str

    def _check(self, text: str) -> str:
        seconds = parse_duration_seconds(text)
        low, high = parse_duration_seconds(self.minimum), parse_duration_seconds(self.maximum)
        if not low <= seconds <= high:
            raise ValueError(f"must be between {self.minimum} and {self.maximum}")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check shape and bounds when parsing."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Check shape and bounds at apply."""
        bounds = (
            f"duration(self) >= duration('{self.minimum}')"
            f" && duration(self) <= duration('{self.maximum}')"
        )
        rule = Cel(
            f"self.matches('{_DURATION_CEL}') && {bounds}",
            f"must be a duration from {self.minimum} to {self.maximum}, such as 300s, 5m or 1h30m",
        )
        return {
            **handler(core),
            "minLength": 2,
            "maxLength": 16,
            "x-kubernetes-validations": [rule.as_schema()],
        }


@dataclass(frozen=True, slots=True)
class SizeBetween:
    """Bounds of a size in bytes with binary units, inclusive."""

    minimum: str
    maximum: str

    def _check(self, text: str) -> str:
        size = parse_size_bytes(text)
        if not parse_size_bytes(self.minimum) <= size <= parse_size_bytes(self.maximum):
            raise ValueError(f"must be between {self.minimum} and {self.maximum}")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check shape and bounds when parsing."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Check shape and bounds at apply."""
        rule = Cel(
            f"self.matches('{_SIZE.pattern}')"
            f" && quantity(self).compareTo(quantity('{self.minimum}')) >= 0"
            f" && quantity(self).compareTo(quantity('{self.maximum}')) <= 0",
            f"must be a size from {self.minimum} to {self.maximum}, such as 512Ki, 8Mi or 1Gi",
        )
        return {
            **handler(core),
            "maxLength": 16,
            "x-kubernetes-validations": [rule.as_schema()],
        }


@dataclass(frozen=True, slots=True)
class Surge:
    """An absolute count or a percentage of the fleet."""

    def _check(self, value: int | str) -> int | str:
        if isinstance(value, int):
            valid = 0 <= value <= 1000
        else:
            valid = _SURGE_PERCENT.fullmatch(value) is not None
        if not valid:
            raise ValueError("must be a count from 0 to 1000, or a percentage from 0% to 100%")
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the shape when parsing."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        """Describe an IntOrString."""
        rule = Cel(
            "type(self) == int ? self >= 0 && self <= 1000 : self.matches('^[0-9]{1,2}%$|^100%$')",
            "must be a count from 0 to 1000, or a percentage from 0% to 100%",
        )
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": 16,
            "x-kubernetes-validations": [rule.as_schema()],
        }


def _absent_if_unknown(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


ABSENT_IF_UNKNOWN = WrapValidator(_absent_if_unknown)
"""A word of the status that another version may have written and this one does not know."""

PERCENT = Cel(r"self.matches('^[0-9]{1,3}([.][0-9]{1,2})?%$')", "must be a percentage such as 20%")
Percent = Annotated[str, Field(max_length=8, pattern=r"^\d{1,3}(\.\d{1,2})?%$"), PERCENT]
MaxSurge = Annotated[int | str, Surge()]

Short = Annotated[str, Field(max_length=63)]
Text = Annotated[str, Field(max_length=253)]
Long = Annotated[str, Field(max_length=4096)]
StringMap = Annotated[dict[str, Long], Field(max_length=64)]
"""At most 64 entries."""

DNS_LABEL = Cel(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "must be a DNS label: lower-case letters, digits and '-', starting and ending with a letter"
    " or digit",
)
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Cel(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "must be the name of an object: lower-case letters, digits, '-' and '.'",
    ),
]

HeaderName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    Cel(
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$') && !self.startsWith('x-llmfleet-')",
        "must be the name of a header in lower case (letters, digits, '-' and '.'), and not begin"
        " with x-llmfleet-, which clients cannot send",
    ),
]

HeaderValue = Annotated[
    str,
    Field(min_length=1, max_length=256),
    Cel("self.matches('^[ -~]+$')", "must be printable ASCII, since no header can say more"),
]


class SecretReference(ResourceModel):
    """Names a Secret of the same namespace."""

    name: ObjectName
    """Name of the Secret; its key `token` is used. The operator never reads it."""
