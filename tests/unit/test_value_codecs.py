"""Values as types of a program: what fits, and the reason of what does not."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from haptera.value_codecs import CODECS, KEPT_MAX, REASON_MAX, CodecName, Misfit, ValueCodec, codec_of


class Colour(enum.Enum):
    RED = "red"


class Settings(msgspec.Struct):
    name: str
    limit: int = 0
    since: datetime | None = None


@dataclass
class Point:
    x: int
    y: float


class Checked(msgspec.Struct):
    even: int

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError("it is odd")


class Quoting(msgspec.Struct):
    text: str

    def __post_init__(self) -> None:
        raise ValueError(self.text)


class NotAStruct:
    pass


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("of", "value"),
    [
        (Settings, Settings("a", 3, datetime(2026, 1, 2, tzinfo=UTC))),
        (Point, Point(1, 2.5)),
        (list[int], [1, 2]),
        (dict[str, Point], {"a": Point(1, 2.0)}),
        (bytes, b"\x00\xff"),
        (Colour, Colour.RED),
    ],
)
def test_a_value_comes_back_as_it_was(codec: CodecName, of: Any, value: object) -> None:
    made: ValueCodec[Any] = ValueCodec(of, codec)
    assert made.decode(made.encode(value)) == value


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\xc1\xff", ""),
        (msgspec.json.encode({"name": 1}), ""),
        (msgspec.msgpack.encode({"name": 1}), ""),
    ],
)
def test_bytes_that_do_not_fit_are_a_misfit_with_a_reason(codec: CodecName, data: bytes, reason: str) -> None:
    with pytest.raises(Misfit, match=reason or ".") as misfit:
        ValueCodec(Settings, codec).decode(data)
    assert misfit.value.__cause__ is None
    assert str(misfit.value).isprintable()


def test_a_value_that_is_nested_too_deeply_is_a_misfit() -> None:
    depth = 200_000
    with pytest.raises(Misfit, match="nested too deeply"):
        codec_of(list[Any], "json").decode(b"[" * depth + b"]" * depth)
    with pytest.raises(Misfit, match="nested too deeply"):
        codec_of(list[Any], "msgpack").decode(b"\x91" * depth + b"\x00")


def test_a_reason_is_short_and_has_no_character_that_a_terminal_obeys() -> None:
    with pytest.raises(Misfit) as misfit:
        codec_of(Quoting, "json").decode(msgspec.json.encode({"text": "\x1b[2J" * 1000}))
    assert len(str(misfit.value)) <= REASON_MAX
    assert str(misfit.value).isprintable()


def test_a_check_of_the_program_is_a_reason() -> None:
    with pytest.raises(Misfit, match="it is odd"):
        codec_of(Checked, "json").decode(b'{"even": 3}')


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_encoded_that_its_reader_would_refuse(codec: CodecName) -> None:
    wrong: Any = "many"
    with pytest.raises(Misfit, match=r"Expected `int`.*limit"):
        ValueCodec(Settings, codec).encode(Settings("a", limit=wrong))
    with pytest.raises(Misfit):
        ValueCodec(Settings, codec).encode(Settings("\ud800"))


def test_a_number_that_json_has_not_is_a_misfit() -> None:
    with pytest.raises(Misfit):
        ValueCodec(float, "json").encode(math.nan)
    assert math.isnan(ValueCodec(float, "msgpack").decode(ValueCodec(float, "msgpack").encode(math.nan)))


def test_a_value_of_another_class_is_a_type_error() -> None:
    other: Any = Point(1, 2.0)
    with pytest.raises(TypeError, match="the value is a Settings, not Point"):
        ValueCodec(Settings, "json").encode(other)


def test_a_type_or_a_codec_that_cannot_be_used_is_refused_at_once() -> None:
    xml: Any = "xml"
    with pytest.raises(TypeError, match="NotAStruct is no Struct"):
        ValueCodec(NotAStruct, "json")
    with pytest.raises(ValueError, match="'json' or 'msgpack', not 'xml'"):
        ValueCodec(Settings, xml)


def test_the_codecs_that_are_kept_are_bounded() -> None:
    for number in range(KEPT_MAX + 10):
        codec_of(msgspec.defstruct(f"S{number}", ["a"]), "json")
    assert codec_of(Settings, "json") is codec_of(Settings, "json")
    from haptera import value_codecs

    assert value_codecs._kept.cache_info().currsize <= KEPT_MAX


class TestModels:
    """Models of pydantic, where that is installed."""

    @pytest.fixture
    def model(self) -> Any:
        pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
        return pydantic.create_model("Job", name=(str, ...), priority=(int, pydantic.Field(ge=0)), at=(datetime, ...))

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_model_comes_back_as_it_was(self, model: Any, codec: CodecName) -> None:
        made: ValueCodec[Any] = ValueCodec(model, codec)
        value = model(name="a", priority=1, at=datetime(2026, 1, 2, tzinfo=UTC))
        assert made.decode(made.encode(value)) == value

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_model_checks_what_is_read_and_quotes_no_value(self, model: Any, codec: CodecName) -> None:
        module = msgspec.json if codec == "json" else msgspec.msgpack
        data = module.encode({"name": "n", "priority": "the-secret", "at": "2026-01-02T00:00:00Z"})
        with pytest.raises(Misfit, match=r"valid integer.*priority") as misfit:
            ValueCodec(model, codec).decode(data)
        assert "the-secret" not in str(misfit.value)

    def test_a_model_checks_what_is_written(self, model: Any) -> None:
        value = model(name="a", priority=1, at=datetime(2026, 1, 2, tzinfo=UTC))
        value.priority = -1
        with pytest.raises(Misfit, match="greater than or equal to 0"):
            ValueCodec(model, "json").encode(value)


def test_the_reason_of_a_model_is_told_by_the_first_pydantic_2_too() -> None:
    """Its errors take two options, and each tells the value, which is not repeated."""

    class Complaint(ValueError):
        def errors(self, *, include_url: bool = True, include_context: bool = True) -> list[dict[str, object]]:
            assert not include_url
            assert not include_context
            return [{"msg": "Field required", "loc": ("host", 0), "input": "secret"}]

    from haptera import value_codecs

    assert value_codecs._reason(Complaint("secret")) == "Field required - at `$.host.0`"
