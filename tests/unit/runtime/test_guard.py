"""Hostile and honest bodies against the real guard on a running app."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet_runtime.body import parse_body
from llmfleet_runtime.guard import ALLOWED_FIELDS
from llmfleet_runtime.refused import Refused
from tests.unit.runtime.guarded_app import GuardedApp

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
JSON = {"content-type": "application/json"}
HELLO = [{"role": "user", "content": "hi"}]


async def post(engine: GuardedApp, path: str, body: bytes | dict[str, object], **headers: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with engine.client(**{**JSON, **headers}) as client:
        return await client.post(path, content=content)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(b"{", "invalid_json", id="broken"),
        pytest.param(b"", "invalid_json", id="empty"),
        pytest.param(b"[1]", "invalid_json", id="no-object"),
        pytest.param(b'{"prompt": "a", "prompt": "b"}', "invalid_json", id="duplicate-key"),
        pytest.param(
            b'{"n": 1, "\\u006e": 99, "prompt": "a"}', "invalid_json", id="duplicate-by-escape"
        ),
        pytest.param(
            b'{"prompt": "a", "x": {"y": 1, "y": 2}}', "invalid_json", id="duplicate-nested"
        ),
        pytest.param(
            b'{"prompt": "a", "c\\u0061che_salt": "x"}', "forbidden_field", id="escaped-name"
        ),
        pytest.param('{"prompt": "a"}'.encode("utf-16"), "invalid_json", id="utf-16"),
        pytest.param(
            '{"prompt": "a"}'.encode("utf-16-le"), "invalid_json", id="utf-16-without-bom"
        ),
        pytest.param('{"prompt": "a"}'.encode("utf-32"), "invalid_json", id="utf-32"),
        pytest.param(b'\xef\xbb\xbf{"prompt": "a"}', "invalid_json", id="utf-8-bom"),
        pytest.param(b'{"prompt": "\xff"}', "invalid_json", id="invalid-utf-8"),
        pytest.param(b'{"prompt": "\\ud800"}', "invalid_json", id="lone-surrogate"),
        pytest.param(b'{"prompt": "a", "temperature": NaN}', "invalid_json", id="nan"),
        pytest.param(
            b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "invalid_json", id="huge-number"
        ),
        pytest.param(
            b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", id="deep"
        ),
        pytest.param(b'{"prompt": 5.5}', "invalid_value", id="wrong-type"),
        pytest.param(b"{}", "invalid_value", id="no-prompt"),
    ],
)
async def test_body_when_hostile_then_400_in_openai_shape(
    engine: GuardedApp, body: bytes, code: str
) -> None:
    answer = await post(engine, COMPLETION, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


FORBIDDEN = {
    "priority": 1,
    "cache_salt": "x",
    "kv_transfer_params": {},
    "ec_transfer_params": {},
    "vllm_xargs": {},
    "request_id": "x",
    "session_id": "x",
    "prompt_embeds": "x",
    "chat_template": "{{ x }}",
    "media_io_kwargs": {},
    "mm_processor_kwargs": {},
    "prompt_logprobs": 1,
    "watermarking": True,
    "guided_regex": "x",
    "what_comes_next_year": 1,
}


@pytest.mark.parametrize("field", FORBIDDEN)
@pytest.mark.parametrize(
    ("path", "base"), [(CHAT, {"messages": HELLO}), (COMPLETION, {"prompt": "a"})]
)
async def test_field_when_not_on_the_list_then_refused_by_name(
    engine: GuardedApp, path: str, base: dict[str, object], field: str
) -> None:
    answer = await post(engine, path, {**base, field: FORBIDDEN[field]})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "forbidden_field"
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"prompt": "a", "n": 9}, id="n"),
        pytest.param({"prompt": "a", "n": "9"}, id="n-as-text"),
        pytest.param({"prompt": "a", "n": 9.0}, id="n-as-float"),
        pytest.param({"prompt": ["a", "b", "c"], "n": 3}, id="n-times-prompts"),
        pytest.param({"prompt": [[1]] * 9}, id="token-prompts"),
    ],
)
async def test_sequences_when_more_than_eight_then_refused(
    engine: GuardedApp, body: dict[str, object]
) -> None:
    answer = await post(engine, COMPLETION, body)
    assert answer.status_code == 400
    assert "n x prompts is 9, the limit is 8" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body", [{"prompt": ["a", "b"], "n": 4}, {"prompt": list(range(500)), "n": 8}]
)
async def test_sequences_when_eight_then_served(
    engine: GuardedApp, body: dict[str, object]
) -> None:
    assert (await post(engine, COMPLETION, body)).status_code == 200


NESTED = [
    pytest.param({"chat_template_kwargs": {"chat_template": "x"}}, id="template-in-kwargs"),
    pytest.param({"chat_template_kwargs": {"enable_thinking": "yes"}}, id="kwargs-value"),
    pytest.param({"structured_outputs": {"regex": "a", "_backend": "x"}}, id="backend-override"),
    pytest.param({"structured_outputs": {"regex": "a{100000}"}}, id="counted-regex"),
    pytest.param({"structured_outputs": {"regex": "((a{40}){40}){40}"}}, id="nested-counts"),
    pytest.param({"structured_outputs": {"regex": "a" * 3000}}, id="long-regex"),
    pytest.param({"structured_outputs": {"json": '{"maxLength": 1000000}'}}, id="schema-as-text"),
    pytest.param(
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"pattern": "a{9999}"}},
            }
        },
        id="pattern-in-schema",
    ),
    pytest.param(
        {"response_format": {"s": {"$ref": "http://127.0.0.1/x"}}}, id="reference-elsewhere"
    ),
    pytest.param(
        {"tools": [{"type": "function", "function": {"parameters": {"maxItems": 99999}}}]},
        id="tool-schema",
    ),
    pytest.param({"stop": ["x"] * 17}, id="stops"),
    pytest.param({"stop": "x" * 1025}, id="long-stop"),
    pytest.param({"bad_words": ["a", "x" * 1025]}, id="long-bad-word"),
    pytest.param({"logit_bias": {str(i): 1 for i in range(5000)}}, id="logit-bias"),
    pytest.param(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1"}}],
                }
            ]
        },
        id="media-by-address",
    ),
    pytest.param(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
                }
            ]
        },
        id="media-from-file",
    ),
    pytest.param(
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_embeds", "image_embeds": "x"}]}
            ]
        },
        id="embeds",
    ),
]


@pytest.mark.parametrize("change", NESTED)
async def test_nested_value_when_dangerous_then_refused(
    engine: GuardedApp, change: dict[str, object]
) -> None:
    answer = await post(engine, CHAT, {"messages": HELLO, **change})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_honest_request_when_full_then_passes_unchanged(engine: GuardedApp) -> None:
    body = {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "ü \U0001f600 \\u0041"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
        ],
        "temperature": 0.5,
        "stop": ["x"],
        "seed": 7,
        "structured_outputs": {"regex": "[a-z]{1,20}"},
        "chat_template_kwargs": {"enable_thinking": False},
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        ],
    }
    answer = await post(engine, CHAT, body)
    assert answer.status_code == 200
    assert {key: answer.json()[key] for key in body} == body


@pytest.mark.parametrize(
    ("path", "body", "field", "expected"),
    [
        (CHAT, {"messages": HELLO}, "max_completion_tokens", 5),
        (CHAT, {"messages": HELLO, "max_tokens": 3}, "max_completion_tokens", 3),
        (CHAT, {"messages": HELLO, "max_tokens": 99}, "max_completion_tokens", 5),
        (CHAT, {"messages": HELLO, "max_completion_tokens": 99}, "max_completion_tokens", 5),
        (COMPLETION, {"prompt": "a"}, "max_tokens", 5),
        (COMPLETION, {"prompt": "a", "max_tokens": None}, "max_tokens", 5),
        (COMPLETION, {"prompt": "a", "max_tokens": 2}, "max_tokens", 2),
        (COMPLETION, {"prompt": "a", "min_tokens": 50}, "min_tokens", 5),
    ],
)
async def test_cap_when_router_sets_it_then_length_is_lowered(
    engine: GuardedApp, path: str, body: dict[str, object], field: str, expected: int
) -> None:
    answer = await post(engine, path, body, **{"x-llmfleet-max-tokens": "5"})
    assert answer.json()[field] == expected


async def test_trusted_headers_when_sent_then_salt_and_priority_are_set(engine: GuardedApp) -> None:
    headers = {"x-llmfleet-tenant": "bob@example/x", "x-llmfleet-priority": "-7"}
    first = (await post(engine, CHAT, {"messages": HELLO}, **headers)).json()
    other = (
        await post(engine, CHAT, {"messages": HELLO}, **{**headers, "x-llmfleet-tenant": "eve"})
    ).json()
    assert first["priority"] == -7
    assert first["cache_salt"] != other["cache_salt"]
    assert len(first["cache_salt"]) == 64
    assert not set(first["cache_salt"]) - set("0123456789abcdef")


@pytest.mark.parametrize("value", ["x", "1e3", str(2**64)])
async def test_trusted_header_when_no_number_then_400(engine: GuardedApp, value: str) -> None:
    answer = await post(engine, CHAT, {"messages": HELLO}, **{"x-llmfleet-priority": value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_header")


async def test_content_type_when_not_json_then_415(engine: GuardedApp) -> None:
    answer = await post(engine, CHAT, {"messages": HELLO}, **{"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_operation_when_model_lacks_it_then_404_in_openai_shape(engine: GuardedApp) -> None:
    answer = await post(engine, "/v1/embeddings", {"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_supported")


def test_fields_when_listed_then_none_of_the_dangerous_ones() -> None:
    for fields in ALLOWED_FIELDS.values():
        assert not fields & set(FORBIDDEN)


@pytest.mark.long
@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
    )
)
def test_parse_when_valid_json_object_then_same_as_the_standard_library(
    value: dict[str, object],
) -> None:
    assert parse_body(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_parse_when_any_bytes_then_object_or_refusal(body: bytes) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(parse_body(body), dict)
