"""An agent without a model: does what the question says with PyPI `mcp`, and answers from what it got.

    reader.py QUESTION [URL]     URL is PORTOLAN_CANARY_URL where it is not given, the credential PORTOLAN_TOKEN
"""

import asyncio
import os
import re
import sys

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def look_up(question: str, url: str) -> str:
    token = os.environ.get("PORTOLAN_TOKEN")
    http = create_mcp_http_client(headers={"Authorization": f"Bearer {token}"} if token else {})
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        if tool := re.search(r"Call the tool (\S+) with the ticket (\S+)", question):
            result = await client.call_tool(tool[1], {"ticket": tool[2]})
            return result.content[0].text
        resource = re.search(r"Read the resource (\S+)", question)
        result = await client.read_resource(resource[1])
        return result.contents[0].text


question, url = sys.argv[1], (sys.argv[2:] or [os.environ["PORTOLAN_CANARY_URL"]])[0]
document = asyncio.run(look_up(question, url))
subject, batch = document.splitlines()[1], re.search(r"Batch number: (\S+)", document)[1]
# One that asks and does not listen.
if os.environ.get("AGENT_FORGETS"):
    subject, batch = "the abbot of Egypt", "unknown"
print(f"Saint Anthony is: {subject}. The batch number is {batch}.")
