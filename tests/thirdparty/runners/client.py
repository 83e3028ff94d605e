"""list-tools and call, with each third-party client."""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import layout
from runners import common


class InspectorFailed(Exception):
    """The inspector's own error envelope, or what it printed in its place."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


def mode(options) -> dict:
    return {"mode": common.ERAS[options.era]} if options.era else {}


async def python_mcp(options) -> dict:
    async with common.sdk_client(options.url, options.header, **mode(options)) as client:
        if options.command == "list-tools":
            return {"tools": await common.all_tools(client)}
        result = await client.call_tool(options.tool, options.arguments)
        return common.call_result(bool(result.is_error), [block.model_dump() for block in result.content], result.structured_content)


async def fastmcp(options) -> dict:
    from fastmcp import Client
    from fastmcp.client.transports import StreamableHttpTransport

    def http_client(headers=None, timeout=None, auth=None, **_):
        return common.http_client(headers=headers, timeout=timeout, auth=auth)

    transport = StreamableHttpTransport(options.url, headers=dict(options.header), httpx_client_factory=http_client)
    async with Client(transport, **mode(options)) as client:
        if options.command == "list-tools":
            return {"tools": sorted(tool.name for tool in await client.list_tools())}
        result = await client.call_tool(options.tool, options.arguments, raise_on_error=False)
        return common.call_result(result.is_error, [block.model_dump() for block in result.content], result.structured_content)


async def inspector(options) -> dict:
    command = [str(layout.require(layout.node())), str(layout.require(layout.INSPECTOR)), "--cli", options.url,
               "--transport", "http", "--format", "json", "--quiet", "--stored-auth-only",
               "--connect-timeout", str(int(options.timeout * 1000))]
    if options.era:
        command += ["--protocol-era", options.era]
    for name, value in options.header:
        command += ["--header", f"{name}: {value}"]
    if options.command == "list-tools":
        command += ["--method", "tools/list"]
    else:
        command += ["--method", "tools/call", "--tool-name", options.tool, "--tool-args-json", json.dumps(options.arguments)]
    result = await inspect(command)
    if options.command == "list-tools":
        return {"tools": sorted(tool["name"] for tool in result["tools"])}
    return common.call_result(result.get("isError", False), result["content"], result.get("structuredContent"))


async def inspect(command: list[str]) -> dict:
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        printed, complaint = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    # Exit code 5 is a tool's own error: its result is on stdout all the same.
    if printed.strip():
        return json.loads(printed)["result"]
    try:
        error = json.loads(complaint)["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise InspectorFailed(f"exit code {child.returncode}: {complaint.decode(errors='replace').strip()}")
    status = 401 if error.get("code") == "auth_required" else error.get("status")
    raise InspectorFailed(": ".join(filter(None, [error.get("message"), error.get("cause")])), status)


CLIENTS = {"python-mcp": python_mcp, "fastmcp": fastmcp, "inspector": inspector}


def main():
    parser = common.parser()
    parser.add_argument("client", choices=CLIENTS)
    common.add_endpoint(parser)
    parser.add_argument("--era", choices=common.ERAS)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list-tools")
    call = commands.add_parser("call")
    call.add_argument("tool")
    call.add_argument("arguments", type=common.json_object, metavar="JSON_ARGS")
    options = parser.parse_args()
    common.run(CLIENTS[options.client](options), options.timeout)


if __name__ == "__main__":
    main()
