"""What the chart runs, and what it leaves to the operator."""
import unittest

import chart

DIGEST = "sha256:" + "a" * 64
# Everything that a value can add to what is rendered.
EVERYTHING = {
    "platformNamespaces": ["edge"],
    "imagePullSecrets": ["registry"],
    "operator": {"replicaCount": 2},
    "monitoring": {"podMonitor": {"enabled": True}},
}
SNAPSHOTS = chart.ROOT / "operator/src/gateway/build/snapshots"
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def labelled_pod(objects: list[dict]) -> dict:
    [deployment] = [item for item in objects if item["kind"] == "Deployment"]
    return deployment["spec"]["template"]["metadata"]["labels"]


class Pods(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = chart.render(EVERYTHING)
        cls.templates = [(item["metadata"]["name"], item["spec"]["template"]) for item in cls.objects
                         if "template" in item.get("spec", {})]

    def test_there_is_one_pod_template(self):
        self.assertEqual([name for name, _ in self.templates], ["portolan-operator"])

    def test_every_pod_is_restricted(self):
        for name, template in self.templates:
            pod = template["spec"]
            security = pod["securityContext"]
            with self.subTest(name):
                for shared in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertFalse(pod.get(shared), shared)
                self.assertIs(security["runAsNonRoot"], True)
                self.assertGreater(security["runAsUser"], 0)
                self.assertGreater(security["runAsGroup"], 0)
                self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
                for field in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"):
                    self.assertNotIn(field, security)
                for volume in pod.get("volumes", []):
                    self.assertLessEqual(set(volume) - {"name"}, VOLUMES)

    def test_every_container_is_restricted(self):
        seen = 0
        for name, template in self.templates:
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                seen += 1
                security = container["securityContext"]
                with self.subTest(name, container=container["name"]):
                    self.assertIs(security["allowPrivilegeEscalation"], False)
                    self.assertIs(security["readOnlyRootFilesystem"], True)
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    for field in ("privileged", "procMount", "seLinuxOptions", "appArmorProfile", "seccompProfile",
                                  "runAsUser", "runAsNonRoot"):
                        self.assertNotIn(field, security)
                    self.assertFalse([port for port in container.get("ports", []) if "hostPort" in port])
        self.assertEqual(seen, 1)

    def test_every_container_asks_for_resources_and_has_a_memory_limit_and_probes(self):
        for _, template in self.templates:
            for container in template["spec"]["containers"]:
                self.assertEqual(set(container["resources"]["requests"]), {"cpu", "memory"})
                self.assertIn("memory", container["resources"]["limits"])
                ports = {port["name"] for port in container["ports"]}
                for probe in ("livenessProbe", "readinessProbe"):
                    self.assertIn(container[probe]["httpGet"]["port"], ports)

    def test_selectors_find_their_pods_and_hold_nothing_that_a_value_changes(self):
        labelled = chart.render({"commonLabels": {"cost": "1"}, "operator": {"podLabels": {"cost": "2"}}})
        for objects in (self.objects, labelled):
            [deployment] = [item for item in objects if item["kind"] == "Deployment"]
            selector = deployment["spec"]["selector"]["matchLabels"]
            self.assertEqual(set(selector), {"app.kubernetes.io/name", "app.kubernetes.io/instance"})
            self.assertLessEqual(selector.items(), labelled_pod(objects).items())
            for item in objects:
                if item["kind"] in ("NetworkPolicy", "PodDisruptionBudget"):
                    wanted = item["spec"].get("podSelector") or item["spec"]["selector"]
                    self.assertEqual(wanted["matchLabels"], selector)
        self.assertEqual(labelled_pod(labelled)["cost"], "2")

    def test_an_image_by_digest_leaves_out_the_tag(self):
        values = {"image": {"digest": DIGEST, "tag": "v9"}, "bridge": {"image": {"digest": DIGEST, "tag": "v9"}}}
        [deployment] = [item for item in chart.render(values) if item["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        by_digest = f"ghcr.io/portolan/portolan@{DIGEST}"
        self.assertEqual(container["image"], by_digest)
        self.assertIn(f"--image={by_digest}", container["args"])
        self.assertIn(f"--bridge-image=ghcr.io/portolan/portolan-bridge@{DIGEST}", container["args"])

    def test_an_image_without_a_tag_has_the_charts_version(self):
        [deployment] = [item for item in self.objects if item["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        version = deployment["metadata"]["labels"]["app.kubernetes.io/version"]
        self.assertEqual(container["image"], f"ghcr.io/portolan/portolan:{version}")

    def test_no_custom_resource_of_ours_is_rendered(self):
        groups = {item["apiVersion"].split("/")[0] for item in self.objects}
        self.assertNotIn("portolan.dev", groups)

    def test_no_secret_is_rendered(self):
        self.assertEqual([item for item in self.objects if item["kind"] == "Secret"], [])

    def test_every_object_carries_the_common_labels(self):
        for item in chart.render({"commonLabels": {"cost": "shared"}, **EVERYTHING}):
            if item["kind"] != "CustomResourceDefinition":
                with self.subTest(item["kind"], name=item["metadata"]["name"]):
                    self.assertEqual(item["metadata"]["labels"].get("cost"), "shared")

    def test_every_namespaced_object_says_its_namespace(self):
        cluster_wide = ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
        for item in self.objects:
            self.assertEqual(item["kind"] in cluster_wide, "namespace" not in item["metadata"], item["metadata"])


class Monitors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = chart.render(EVERYTHING)
        cls.monitors = {item["metadata"]["name"]: item["spec"] for item in cls.objects if item["kind"] == "PodMonitor"}

    def test_there_is_one_for_the_operator_and_one_for_gateways_when_asked_for(self):
        self.assertEqual(set(self.monitors), {"portolan-operator", "portolan-gateways"})
        self.assertNotIn("PodMonitor", {item["kind"] for item in chart.render()})

    def test_each_selects_pods_that_there_are_by_a_port_that_they_have(self):
        [deployment] = [item for item in self.objects if item["kind"] == "Deployment"]
        # What the operator makes is recorded where it is made.
        recorded = (SNAPSHOTS / "portolan_operator__gateway__build__tests__deployment.snap").read_text()
        [gateway] = chart.objects(recorded.split("\n---\n", 1)[1])
        for name, template in (("operator", deployment), ("gateways", gateway)):
            monitor, pod = self.monitors[f"portolan-{name}"], template["spec"]["template"]
            with self.subTest(name):
                self.assertLessEqual(monitor["selector"]["matchLabels"].items(), pod["metadata"]["labels"].items())
                ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
                self.assertLessEqual({endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]}, ports)

    def test_gateways_are_looked_for_where_they_may_be(self):
        namespaces = self.monitors["portolan-gateways"]["namespaceSelector"]["matchNames"]
        self.assertEqual(set(namespaces), {chart.NAMESPACE, "edge"})
