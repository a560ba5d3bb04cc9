"""The OpenAPI document as a page: plain HTML, made here, that loads nothing from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 small { font-weight: normal; opacity: .6; font-size: 60%; }
nav a { margin-right: 1rem; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; }
summary { cursor: pointer; padding: .4rem .7rem; }
details > div { padding: 0 .9rem .6rem; border-top: 1px solid var(--line); }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
.method { display: inline-block; min-width: 4.2rem; font-weight: 600; }
.get { color: #2a7ae2; } .post { color: #2c9a4b; } .put, .patch { color: #b8860b; }
.delete { color: #c0392b; }
""".strip()

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"vary", b"Accept"),
)


def page(document: dict[str, Any]) -> bytes:
    """The page."""
    return "".join(_parts(document)).encode()


def _parts(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} HTTP API</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        '<p><a href="/schema/openapi.json">openapi.json</a></p><nav>'
    )
    tags: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            tags.setdefault(told["tags"][0], []).append((path, method, told))
    for tag in tags:
        yield f'<a href="#{_anchor(tag)}">{escape(tag)}</a>'
    yield "</nav>"
    for tag, entries in tags.items():
        yield f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>'
        for path, method, told in entries:
            yield from _operation(path, method, told)
    yield "<h2>Schemas</h2>"
    for name, schema in document["components"]["schemas"].items():
        yield (
            f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
            f"<div>{_json(schema)}</div></details>"
        )
    yield "</body></html>"


def _operation(path: str, method: str, told: dict[str, Any]) -> Iterator[str]:
    yield (
        f'<details id="{escape(told["operationId"])}"><summary>'
        f'<span class="method {method}">{method.upper()}</span><code>{escape(path)}</code> '
        f"{escape(told['summary'])}</summary><div>"
    )
    if text := told.get("description"):
        plain = text.removeprefix("```text\n").removesuffix("\n```")
        yield f"<pre>{escape(plain)}</pre>" if plain != text else f"<p>{escape(text)}</p>"
    if told["parameters"]:
        yield "<table><tr><th>parameter<th>in<th>what</tr>"
        for each in told["parameters"]:
            name = escape(each["name"]) + (" *" if each.get("required") else "")
            yield (
                f"<tr><td><code>{name}</code><td>{each['in']}"
                f"<td>{escape(each.get('description', ''))}</tr>"
            )
        yield "</table>"
    if body := told.get("requestBody"):
        yield f"<h4>Body</h4><p>{escape(body.get('description', ''))}</p>"
        yield from _content(body["content"])
    yield "<h4>Answers</h4>"
    for status, answer in told["responses"].items():
        yield f"<p><b>{escape(status)}</b> {escape(answer['description'])}</p>"
        if status.startswith("2"):
            yield from _content(answer.get("content", {}))
    yield "</div></details>"


def _content(content: dict[str, Any]) -> Iterator[str]:
    for media, each in content.items():
        yield f"<p><code>{escape(media)}</code></p>{_json(each['schema'])}"


def _json(schema: Any) -> str:
    return f"<pre>{escape(json.dumps(schema, indent=2, default=str))}</pre>"


def _anchor(tag: str) -> str:
    return escape(tag.replace(" ", "-").replace(":", ""))
