"""The charts as packages, and the definitions that they bring."""
import subprocess
import unittest

import chart

KEEP = "helm.sh/resource-policy"


def definitions(values: dict | None = None, of=chart.CHART) -> list[dict]:
    return [item for item in chart.render(values, of) if item["kind"] == "CustomResourceDefinition"]


class Crds(unittest.TestCase):
    def test_both_charts_pass_the_strict_lint(self):
        for path in (chart.CHART, chart.CRDS):
            with self.subTest(path.name):
                chart.helm("lint", "--strict", str(path))

    def test_the_charts_definitions_are_the_generated_ones(self):
        done = subprocess.run([chart.ROOT / "hack/chart-crds", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        generated = [item for path in sorted((chart.ROOT / "crds/generated").glob("*.yaml"))
                     for item in chart.objects(path.read_text())]
        self.assertEqual(len(generated), 3)
        for source in (chart.CHART, chart.CRDS):
            rendered = definitions(of=source)
            for item in rendered:
                del item["metadata"]["annotations"]
            self.assertEqual(sorted(rendered, key=str), sorted(generated, key=str), source.name)

    def test_the_definitions_are_kept_on_uninstall_unless_told_otherwise(self):
        for values, source in (({}, chart.CHART), ({}, chart.CRDS)):
            for item in definitions(values, source):
                self.assertEqual(item["metadata"]["annotations"][KEEP], "keep")
        for values, source in (({"crds": {"keep": False}}, chart.CHART), ({"keep": False}, chart.CRDS)):
            found = definitions(values, source)
            self.assertEqual(len(found), 3)
            for item in found:
                self.assertNotIn("annotations", item["metadata"])

    def test_the_definitions_can_be_left_out(self):
        self.assertEqual(definitions({"crds": {"enabled": False}}), [])

    def test_the_definitions_as_an_umbrellas_part_take_its_global_values(self):
        self.assertEqual(len(definitions({"global": {"registry": "x"}, "enabled": True}, chart.CRDS)), 3)
