"""A FastMCP server on the port that it is given."""

import sys

from fastmcp import FastMCP

server = FastMCP("fast")


@server.tool
def add(a: int, b: int) -> str:
    """Adds."""
    return f"The sum is {a + b}."


server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
