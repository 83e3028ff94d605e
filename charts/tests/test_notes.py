"""The commands that are shown after an installation, run with programs that record how they were called."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import chart

RECORDER = """#!/usr/bin/env python3
import json, os, sys
text = sys.stdin.read() if "-" in sys.argv else ""
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:], text]), file=file)
print("a-token")
"""


def commands(text: str) -> str:
    """What a reader copies: every paragraph that starts with a program's name."""
    paragraphs = text.split("\n\n")
    return "\n".join(part for part in paragraphs if part.startswith(("kubectl ", "portolan ")))


def calls(script: str) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        for name in ("kubectl", "portolan"):
            program = Path(directory, name)
            program.write_text(RECORDER)
            program.chmod(0o755)
        record = Path(directory, "calls")
        environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "CALLS": str(record)}
        done = subprocess.run(["bash", "-eu"], input=script, env=environment, capture_output=True, text=True)
        if done.returncode != 0 or done.stderr:
            raise AssertionError(f"{done.stderr}\n{script}")
        return [json.loads(line) for line in record.read_text().splitlines()]


class Notes(unittest.TestCase):
    def test_the_commands_run_as_they_are_shown(self):
        made = calls(commands(chart.notes({"tenantNamespaces": ["team-a", "team-b"]})))
        apply, wait, forward, token, tools, describe = made
        self.assertEqual(apply[:-1], ["kubectl", "apply", "--namespace", "team-a", "--filename", "-"])
        [server] = chart.objects(apply[-1])
        self.assertEqual((server["kind"], server["metadata"]["name"]), ("MCPServer", "demo"))
        self.assertEqual(wait[1:5], ["wait", "--namespace", "team-a", "mcps/demo"])
        self.assertEqual(forward[1:-1], ["port-forward", "--namespace", chart.NAMESPACE,
                                         "service/portolan-gateway-default", "8080:80"])
        self.assertEqual(token[1:-1], ["create", "token", "default", "--namespace", "team-a", "--audience", "portolan"])
        url = "http://127.0.0.1:8080/team-a/demo/mcp"
        self.assertEqual(tools[:-1], ["portolan", "tools", url, "--token", "a-token"])
        self.assertEqual(describe[1:-1], ["describe", "--namespace", "team-a", "mcps/demo"])

    def test_the_commands_follow_the_values(self):
        values = {"gateway": {"names": ["front"]}, "defaultGateway": {"name": "front", "audience": "tools"},
                  "image": {"registry": "registry.example", "tag": "v9"}}
        apply, _, forward, token, _, _ = calls(commands(chart.notes(values)))
        [server] = chart.objects(apply[-1])
        self.assertEqual(server["spec"]["container"]["image"], "registry.example/portolan/portolan:v9")
        self.assertIn("service/portolan-gateway-front", forward)
        self.assertIn("tools", token)

    def test_without_a_default_gateway_they_say_what_is_missing(self):
        text = chart.notes({"defaultGateway": {"enabled": False}})
        self.assertIn("apply an MCPGateway with spec.authentication in portolan-system, named default", text)
        self.assertNotIn("port-forward", text)
