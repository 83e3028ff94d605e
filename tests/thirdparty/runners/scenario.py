"""Scenes that need callbacks, streams or several sessions at once, played by the Python SDK's client."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mcp_types as types

from runners import common


def connect(options, **callbacks):
    return common.sdk_client(options.url, options.header, mode=common.ERAS[options.era], **callbacks)


def call(client, options, tool: str, arguments: dict, **more):
    return client.call_tool(options.prefix + tool, arguments, **more)


def answer(client, result, **came) -> dict:
    text = "\n".join(block.text for block in result.content if block.type == "text")
    return {"protocolVersion": client.protocol_version, "isError": bool(result.is_error), "text": text, **came}


async def sampling(options) -> dict:
    asked = []

    async def complete(_context, params):
        asked.append({"prompt": params.messages[0].content.text, "systemPrompt": params.system_prompt, "maxTokens": params.max_tokens})
        return types.CreateMessageResult(role="assistant", model="harbour-model", stop_reason="endTurn",
                                         content=types.TextContent(type="text", text="The tide turns at six."))

    async with connect(options, sampling_callback=complete) as client:
        result = await call(client, options, "trigger-sampling-request", {"prompt": "When does the tide turn?", "maxTokens": 20})
        return answer(client, result, asked=asked)


async def elicitation(options) -> dict:
    asked = []

    async def fill_in(_context, params):
        asked.append({"message": params.message, "fields": sorted(params.requested_schema["properties"])})
        return types.ElicitResult(action="accept", content={"name": "Harbour Master", "check": True, "integer": 7})

    async with connect(options, elicitation_callback=fill_in) as client:
        result = await call(client, options, "trigger-elicitation-request", {})
        return answer(client, result, asked=asked)


async def roots(options) -> dict:
    requests = 0
    asked = asyncio.Event()

    async def list_roots(_context):
        nonlocal requests
        requests += 1
        asked.set()
        return types.ListRootsResult(roots=[types.Root(uri="file:///harbour/pier", name="pier")])

    async with connect(options, list_roots_callback=list_roots) as client:
        await asked.wait()
        result = await call(client, options, "get-roots-list", {})
        return answer(client, result, requests=requests)


async def logging(options) -> dict:
    messages = []
    came = asyncio.Event()

    async def keep(params):
        messages.append({"level": params.level, "data": params.data})
        came.set()

    async with connect(options, logging_callback=keep) as client:
        result = await call(client, options, "toggle-simulated-logging", {})
        await came.wait()
        return answer(client, result, messages=messages)


async def progress(options) -> dict:
    steps = []

    async def keep(done, total, _message):
        steps.append([done, total])

    async with connect(options) as client:
        result = await call(client, options, "trigger-long-running-operation", {"duration": options.seconds, "steps": options.count},
                            progress_callback=keep)
        return answer(client, result, notifications=len(steps), steps=steps)


async def sessions(options) -> dict:
    """Every session is open before the first call, so that all of them live at the same time."""
    everyone = asyncio.Barrier(options.count)

    async def one(number: int) -> str:
        async with connect(options) as client:
            await everyone.wait()
            result = await call(client, options, "echo", {"message": f"session {number}"})
            text = result.content[0].text
            if result.is_error or f"session {number}" not in text:
                raise RuntimeError(f"session {number} was answered {text!r}")
            await everyone.wait()
            return client.protocol_version

    versions = await gather([one(number) for number in range(options.count)])
    return {"protocolVersion": versions[0], "ok": len(versions), "count": options.count}


async def gather(jobs: list) -> list:
    """All or nothing: one session that fails would leave the others waiting for it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
    return [task.result() for task in tasks]


SCENES = {scene.__name__: scene for scene in (sampling, elicitation, roots, logging, progress, sessions)}


def main():
    parser = common.parser()
    parser.add_argument("name", choices=SCENES)
    common.add_endpoint(parser)
    parser.add_argument("--count", type=int, default=4, metavar="N")
    parser.add_argument("--era", choices=common.ERAS, default="legacy")
    parser.add_argument("--prefix", default="", metavar="TEXT")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S")
    options = parser.parse_args()
    if options.count < 1:
        parser.error("--count is at least 1")
    common.run(SCENES[options.name](options), options.timeout)


if __name__ == "__main__":
    main()
