"""Values: each does something, and what is not one is refused."""
import json
import unittest

import chart

# Under these every value has an effect, and a sample for each leaf that differs from its default.
BASE = {
    "commonLabels": {"cost": "shared"},
    "monitoring": {"podMonitor": {"enabled": True}},
    "image": {"tag": "v0"},
    "bridge": {"image": {"tag": "v0"}},
}
DIGEST = "sha256:" + "a" * 64
SAMPLES = {
    "tenantNamespaces": ["team-a"],
    "platformNamespaces": ["edge"],
    "gateway.names": ["default", "second"],
    "gateway.serviceAccount.name": "sample",
    "gateway.serviceAccount.annotations": {"sample": "yes"},
    "gateway.networkPolicy.metricsFrom": [{"namespaceSelector": {}}],
    "defaultGateway.enabled": False,
    "defaultGateway.name": None,  # must be enrolled: see the tests below
    "defaultGateway.audience": "sample",
    "defaultGateway.replicas": 7,
    "crds.enabled": False,
    "crds.keep": False,
    "image.registry": "registry.example",
    "image.repository": "sample",
    "image.tag": "sample",
    "image.digest": DIGEST,
    "image.pullPolicy": "Always",
    "bridge.image.registry": "registry.example",
    "bridge.image.repository": "sample",
    "bridge.image.tag": "sample",
    "bridge.image.digest": DIGEST,
    "imagePullSecrets": ["sample"],
    "remotes.allowedPrivateHosts": ["mcp.sample.svc", "[fd00::1]"],
    "clusterDomain": "sample.local",
    "nameOverride": "sample",
    "fullnameOverride": "sample",
    "commonLabels": {"sample": "yes"},
    "operator.replicaCount": 3,
    "operator.releaseRollouts": 1,
    "operator.logLevel": "debug",
    "operator.resources.requests.cpu": "7m",
    "operator.resources.requests.memory": "7Mi",
    "operator.resources.limits.memory": "7Mi",
    "operator.serviceAccount.name": "sample",
    "operator.serviceAccount.annotations": {"sample": "yes"},
    "operator.podAnnotations": {"sample": "yes"},
    "operator.podLabels": {"sample": "yes"},
    "operator.nodeSelector": {"sample": "yes"},
    "operator.tolerations": [{"key": "sample", "operator": "Exists"}],
    "operator.affinity": {"nodeAffinity": {}},
    "operator.topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "sample", "whenUnsatisfiable": "DoNotSchedule"}],
    "operator.priorityClassName": "sample",
    "operator.extraArgs": ["--sample"],
    "operator.extraEnv": [{"name": "SAMPLE", "value": "yes"}],
    "operator.networkPolicy.enabled": False,
    "operator.networkPolicy.metricsFrom": [{"namespaceSelector": {}}],
    "monitoring.podMonitor.enabled": False,
    "monitoring.podMonitor.labels": {"sample": "yes"},
}
# Helm's own: an umbrella chart hands them to its parts.
HELMS = {"global", "enabled", "crds.global"}


def leaves(value, path: str = "") -> dict:
    if isinstance(value, dict) and value:
        return {leaf: found for key, inner in value.items()
                for leaf, found in leaves(inner, f"{path}.{key}" if path else key).items()}
    return {path: value}


def schema_leaves(schema: dict, definitions: dict, path: str = "") -> dict[str, dict]:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    if not schema.get("properties"):
        return {path: schema}
    return {leaf: found for key, inner in schema["properties"].items()
            for leaf, found in schema_leaves(inner, definitions, f"{path}.{key}" if path else key).items()}


def nested(path: str, value) -> dict:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def at(value, path: str):
    for key in path.split("."):
        value = value[key]
    return value


def merged(one: dict, two: dict) -> dict:
    both = dict(one)
    for key, value in two.items():
        both[key] = merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
    return both


class Values(unittest.TestCase):
    def refused(self, values: dict, *fragments: str, of=chart.CHART):
        with self.assertRaises(chart.Refused) as caught:
            chart.template(values, of)
        for fragment in fragments:
            self.assertIn(fragment, str(caught.exception))

    def test_every_value_changes_what_is_rendered(self):
        defaults = leaves(chart.default_values())
        self.assertEqual(set(defaults), set(SAMPLES), "each leaf of values.yaml has a sample")
        base = merged(chart.default_values(), BASE)
        before = chart.template(BASE)
        for path, sample in SAMPLES.items():
            if sample is None:
                continue
            with self.subTest(path):
                self.assertNotEqual(at(base, path), sample)
                self.assertNotEqual(chart.template(merged(BASE, nested(path, sample))), before, "does nothing")

    def test_a_value_that_an_earlier_release_had_not_is_left_to_the_operator(self):
        # `helm upgrade --reuse-values` renders this chart with the values of the one before.
        rendered = chart.template({"operator": {"releaseRollouts": None}})
        self.assertNotIn("--release-rollouts", rendered)

    def test_the_default_gateways_name_changes_what_is_rendered(self):
        names = {"gateway": {"names": ["default", "front"]}}
        one, two = (chart.template({**names, "defaultGateway": {"name": name}}) for name in ("default", "front"))
        self.assertNotEqual(one, two)

    def test_the_schema_knows_the_values_that_there_are_and_no_others(self):
        schema = json.loads((chart.CHART / "values.schema.json").read_text())
        known = set(schema_leaves(schema, schema["$defs"]))
        # The content of these is Kubernetes' own.
        open_objects = {path for path in known if any(leaf.startswith(path + ".") for leaf in SAMPLES)}
        self.assertEqual(open_objects, {"operator.resources"})
        missing = {leaf for leaf in SAMPLES if not leaf.startswith("operator.resources.")}
        self.assertEqual(known - open_objects, missing | HELMS)

    def test_gateway_names_are_those_that_the_definition_takes(self):
        schema = json.loads((chart.CHART / "values.schema.json").read_text())["$defs"]["gatewayName"]
        [gateway] = [item for item in chart.render(chart=chart.CRDS) if item["spec"]["names"]["kind"] == "MCPGateway"]
        root = gateway["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        rules = {rule["rule"] for rule in root["x-kubernetes-validations"]}
        self.assertIn(f"self.metadata.name.matches('{schema['pattern']}')", rules)
        self.assertIn(f"size(self.metadata.name) <= {schema['maxLength']}", rules)

    def test_every_object_of_the_schema_is_closed(self):
        schema = json.loads((chart.CHART / "values.schema.json").read_text())

        def check(part: dict, path: str):
            if "properties" in part:
                self.assertIs(part.get("additionalProperties"), False, path)
                for key, inner in part["properties"].items():
                    check(inner, f"{path}.{key}")

        check(schema, "")
        for name, definition in schema["$defs"].items():
            check(definition, name)

    def test_an_unknown_value_is_refused_by_name(self):
        for values in ({"tenantNamespace": ["a"]}, {"operator": {"replicas": 2}}, {"gateway": {"name": "a"}},
                       {"image": {"tags": "a"}}, {"crds": {"install": True}}):
            [[key, value]] = values.items()
            wrong = next(iter(value)) if isinstance(value, dict) else key
            with self.subTest(wrong):
                self.refused(values, f"'{wrong}' not allowed")
        self.refused({"keeps": True}, "'keeps' not allowed", of=chart.CRDS)

    def test_a_value_of_a_wrong_type_is_refused_at_its_place(self):
        cases = {
            "/tenantNamespaces": {"tenantNamespaces": "default"},
            "/tenantNamespaces/0": {"tenantNamespaces": ["Team_A"]},
            "/gateway/names/0": {"gateway": {"names": ["1st"]}},
            "/gateway/names": {"gateway": {"names": []}},
            "/operator/replicaCount": {"operator": {"replicaCount": 0}},
            "/defaultGateway/replicas": {"defaultGateway": {"replicas": 51}},
            "/image/digest": {"image": {"digest": "sha256:abc"}},
            "/image/pullPolicy": {"image": {"pullPolicy": "Sometimes"}},
            "/remotes/allowedPrivateHosts/0": {"remotes": {"allowedPrivateHosts": ["http://mcp.sample.svc:8080"]}},
            "/operator/podAnnotations/a": {"operator": {"podAnnotations": {"a": 1}}},
        }
        for place, values in cases.items():
            with self.subTest(place):
                self.refused(values, f"at '{place}'")

    def test_a_peer_that_would_open_more_than_was_meant_is_refused_at_its_place(self):
        prometheus = {"matchLabels": {"app": "prometheus"}}
        cases = {
            ("", "minProperties"): {},
            ("", "'podSelectr' not allowed"): {"namespaceSelector": {}, "podSelectr": prometheus},
            ("/podSelector", "'matchLabel' not allowed"): {"podSelector": {"matchLabel": {"app": "prometheus"}}},
            ("/podSelector/matchLabels/scraper", "got boolean, want string"):
                {"podSelector": {"matchLabels": {"scraper": True}}},
            ("/namespaceSelector/matchExpressions/0", "missing property 'operator'"):
                {"namespaceSelector": {"matchExpressions": [{"key": "team"}]}},
            ("/namespaceSelector/matchExpressions/0/operator", "one of 'In', 'NotIn', 'Exists', 'DoesNotExist'"):
                {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Is"}]}},
            ("/ipBlock", "missing property 'cidr'"): {"ipBlock": {}},
        }
        good = {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]},
                "podSelector": prometheus}
        for part in ("operator", "gateway"):
            path = f"{part}.networkPolicy.metricsFrom"
            chart.template(nested(path, [good, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]))
            for (place, why), peer in cases.items():
                with self.subTest(path, place=place, why=why):
                    self.refused(nested(path, [good, peer]), f"at '/{path.replace('.', '/')}/1{place}'", why)

    def test_global_and_enabled_are_accepted(self):
        self.assertEqual(chart.template({"global": {"registry": "x"}, "enabled": True}), chart.template())

    def test_a_default_gateway_that_is_not_enrolled_is_refused(self):
        self.refused({"defaultGateway": {"name": "front"}},
                     'defaultGateway.name "front" is not enrolled: add it to gateway.names')
        chart.template({"defaultGateway": {"name": "front", "enabled": False}})

    def test_no_tenant_at_all_is_refused(self):
        self.refused({"tenantNamespaces": []},
                     "tenantNamespaces is empty: name at least one namespace whose MCPServers count")

    def test_a_label_by_which_the_chart_selects_is_refused(self):
        for path in ("commonLabels", "operator.podLabels"):
            with self.subTest(path):
                self.refused(nested(path, {"app.kubernetes.io/name": "x"}), f"{path} sets app.kubernetes.io/name")

    def test_an_empty_value_stands_for_its_default(self):
        self.assertEqual(chart.template({"operator": {"podLabels": None}, "commonLabels": None}), chart.template())
