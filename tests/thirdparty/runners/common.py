"""What the runners share: the command line, headers, and how results and failures are printed."""

import argparse
import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

MOST_PAGES = 100
TIMED_OUT = 3
# By what the SDK's `mode` calls them.
ERAS = {"legacy": "legacy", "modern": "2026-07-28"}


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=Path(sys.argv[0]).stem, description=os.environ.get("RUNNER_USAGE"),
                                   formatter_class=argparse.RawDescriptionHelpFormatter)


def add_endpoint(parser: argparse.ArgumentParser):
    parser.add_argument("url")
    parser.add_argument("--header", action="append", default=[], type=header, metavar="'K: V'")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S")


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"write 'Name: value', not {text!r}")
    return name.strip(), value.strip()


def json_object(text: str) -> dict:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}")
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("the arguments of a tool are a JSON object")
    return value


def call_result(is_error: bool, content: list, structured: Any) -> dict:
    """One shape for every client; `content` holds blocks as the protocol writes them."""
    text = "\n".join(block["text"] for block in content if block.get("type") == "text")
    return {"isError": is_error, "text": text, "structured": structured}


def run(answer, seconds: float):
    """Run the coroutine, print its result as JSON and exit; a failure is printed too."""
    async def bounded():
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await answer
        except TimeoutError as error:
            raise DeadlineReached(f"no answer within {seconds:g} s") if deadline.expired() else error

    try:
        result = asyncio.run(bounded())
    except DeadlineReached as error:
        print(json.dumps({"error": str(error), "code": None, "status": None}))
        sys.exit(TIMED_OUT)
    except Exception as error:
        print(json.dumps(describe(error)))
        sys.exit(1)
    print(json.dumps(result))


class DeadlineReached(Exception):
    """The run took longer than --timeout."""


def describe(error: BaseException) -> dict:
    """The first real error inside the groups that task groups wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    code = getattr(error, "code", None)
    return {
        "error": f"{type(error).__name__}: {error}",
        "code": code if isinstance(code, int) else None,
        "status": getattr(error, "status", last_refusal),
    }


# The SDK turns a refusal's body into its own error and drops the HTTP status, so it is noted as it passes.
last_refusal: int | None = None


async def note_refusal(response):
    global last_refusal
    if response.status_code >= 400:
        last_refusal = response.status_code


def http_client(**options):
    """The SDK's own HTTP client, with refusals noted."""
    from mcp.shared._httpx_utils import create_mcp_http_client

    client = create_mcp_http_client(**options)
    client.event_hooks["response"].append(note_refusal)
    return client


@asynccontextmanager
async def sdk_client(url: str, headers: list[tuple[str, str]], **options):
    """The Python SDK's client over streamable HTTP."""
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with http_client(headers=dict(headers)) as http:
        async with Client(streamable_http_client(url, http_client=http), **options) as client:
            yield client


async def all_tools(client) -> list[str]:
    names, cursor = [], None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return sorted(names)
    raise RuntimeError(f"tools/list did not end within {MOST_PAGES} pages")
