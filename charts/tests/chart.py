"""Rendering the charts with the helm of the test cluster, and reading what comes out."""
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/portolan"
CRDS = ROOT / "charts/portolan-crds"
GOLDEN = Path(__file__).parent / "golden"
HELM = ROOT / "target/kube/bin/helm"
KUBECTL = ROOT / "target/kube/bin/kubectl"

RELEASE = "portolan"
NAMESPACE = "portolan-system"

UPDATE = False


class Refused(Exception):
    """Helm's message."""


def build_tools() -> None:
    """Builds helm and kubectl, which costs nothing when they are there."""
    subprocess.run([ROOT / "tests/kube/build"], check=True)


def helm(*arguments: str, values: dict | None = None) -> str:
    """What helm prints; raises Refused with what it says on standard error."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values or {}, file)
        file.flush()
        given = [] if values is None else ["--values", file.name]
        done = subprocess.run([HELM, *arguments, *given], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def template(values: dict | None = None, chart: Path = CHART) -> str:
    """The rendered chart as YAML."""
    return helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, values=values or {})


def render(values: dict | None = None, chart: Path = CHART) -> list[dict]:
    """The rendered objects."""
    return objects(template(values, chart))


def notes(values: dict | None = None) -> str:
    """What is shown after an installation."""
    arguments = ("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client")
    return helm(*arguments, values=values or {}).split("\nNOTES:\n", 1)[1]


def objects(manifest: str) -> list[dict]:
    """Parses YAML documents, each an API object. Python brings no YAML, kubectl does."""
    command = [KUBECTL, "annotate", "--local", "--filename=-", "--output=json", "charts.test/read=yes"]
    environment = {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
    done = subprocess.run(command, input=manifest, env=environment, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise ValueError(f"kubectl cannot read this: {done.stderr}\n{manifest}")
    decoder, rest, found = json.JSONDecoder(), done.stdout.strip(), []
    while rest:
        item, end = decoder.raw_decode(rest)
        annotations = item["metadata"]["annotations"]
        del annotations["charts.test/read"]
        if not annotations:
            del item["metadata"]["annotations"]
        found.append(item)
        rest = rest[end:].strip()
    return found


def default_values() -> dict:
    """values.yaml of the chart."""
    text = (CHART / "values.yaml").read_text()
    head = "apiVersion: charts.test/v1\nkind: Values\nmetadata: {name: values}\nvalues:\n"
    [wrapped] = objects(head + "".join(f"  {line}\n" for line in text.splitlines()))
    return wrapped["values"]


def check_golden(test, name: str, text: str) -> None:
    """Compares with a golden file, or writes it."""
    path = GOLDEN / name
    if UPDATE:
        path.write_text(text)
    test.maxDiff = None
    test.assertEqual(path.read_text(), text, f"{name}: if the change is wanted, run charts/tests/run --update")
