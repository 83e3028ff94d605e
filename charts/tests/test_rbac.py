"""What the chart lets its two service accounts do."""
import re
import unittest

import chart
from rights import Right, Rights, table

TENANTS = ["team-a", "team-b"]
OTHER_PLATFORM = "edge"
VALUES = {"tenantNamespaces": TENANTS, "platformNamespaces": [OTHER_PLATFORM]}
NAMESPACES = {
    "tenant": TENANTS,
    "platform": [chart.NAMESPACE, OTHER_PLATFORM],
    "release": [chart.NAMESPACE],
    "other": ["kube-system"],
    "cluster": [""],
}
OPERATOR = (chart.NAMESPACE, "portolan-operator")
GATEWAYS = [(namespace, "portolan-gateway") for namespace in NAMESPACES["platform"]]
KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ServiceAccount")
FILES = ("accounts.yaml", "rbac-cluster.yaml", "rbac-platform.yaml", "rbac-tenants.yaml")


def requests(right: Right):
    """(account, namespace) of every request that a row stands for."""
    for namespace in NAMESPACES[right.kind]:
        if right.account == "operator":
            yield OPERATOR, namespace
            continue
        for gateway in GATEWAYS:
            # A gateway's platform namespace is its own; the others have a test of their own.
            if right.kind not in ("platform", "release") or gateway[0] == namespace:
                yield gateway, namespace


class Rbac(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = chart.render(VALUES)
        cls.rights = Rights(cls.objects)

    def test_the_rendered_rights_are_the_golden_ones(self):
        shown = [arg for name in FILES for arg in ("--show-only", f"templates/{name}")]
        text = chart.helm("template", chart.RELEASE, str(chart.CHART), "--namespace", chart.NAMESPACE, *shown,
                          values=VALUES)
        # How many empty lines stand between documents is a matter of helm's version.
        chart.check_golden(self, "rbac.yaml", re.sub(r"\n+---\n", "\n---\n", text).rstrip() + "\n")
        # Nothing of the kind comes from another file.
        in_files = [item for item in chart.objects(text) if item["kind"] in KINDS]
        self.assertEqual(len(in_files), len([item for item in self.objects if item["kind"] in KINDS]))

    def test_every_needed_right_is_granted(self):
        for right in table("allowed.tsv"):
            for account, namespace in requests(right):
                with self.subTest(str(right), account=account, namespace=namespace):
                    self.assertTrue(self.rights.allows(account, right, namespace))

    def test_no_right_is_granted_that_is_not_needed(self):
        for account in (OPERATOR, *GATEWAYS):
            wanted: dict[str, set] = {}
            for right in table("allowed.tsv"):
                for who, namespace in requests(right):
                    if who == account:
                        key = (right.verb, right.group, right.resource, right.name)
                        wanted.setdefault(namespace, set()).add(key)
            with self.subTest(account=account):
                self.maxDiff = None
                self.assertEqual(self.rights.granted(account), wanted)

    def test_every_forbidden_right_is_refused(self):
        for right in table("forbidden.tsv"):
            for account, namespace in requests(right):
                with self.subTest(str(right), account=account, namespace=namespace):
                    self.assertFalse(self.rights.allows(account, right, namespace))

    def test_no_rule_of_the_chart_has_a_wildcard(self):
        roles = [item for item in self.objects if item["kind"] in ("Role", "ClusterRole")]
        self.assertGreater(len(roles), 4)
        for role in roles:
            for rule in role["rules"]:
                for part in ("verbs", "apiGroups", "resources"):
                    with self.subTest(role["metadata"]["name"], rule=rule):
                        self.assertFalse([item for item in rule[part] if "*" in item])

    def test_a_gateway_has_no_right_in_another_platform_namespace(self):
        for home, name in GATEWAYS:
            others = {namespace for namespace in NAMESPACES["platform"] if namespace != home}
            self.assertEqual(others & self.rights.granted((home, name)).keys(), set())

    def test_nobody_but_the_two_accounts_is_bound(self):
        self.assertEqual(set(self.rights.rules), {OPERATOR, *GATEWAYS})
        made = {(item["metadata"]["namespace"], item["metadata"]["name"])
                for item in self.objects if item["kind"] == "ServiceAccount"}
        self.assertEqual(made, {OPERATOR, *GATEWAYS})

    def test_tokens_are_not_mounted_unless_a_pod_asks(self):
        for item in self.objects:
            if item["kind"] == "ServiceAccount":
                self.assertIs(item["automountServiceAccountToken"], False)

    def test_rights_of_people_come_by_aggregation_and_leave_gateways_to_the_platform(self):
        rules = {item["metadata"]["name"]: item for item in self.objects if item["kind"] == "ClusterRole"}
        view, edit = rules["portolan-view"], rules["portolan-edit"]
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        self.assertEqual(view["metadata"]["labels"].get(prefix + "view"), "true")
        self.assertEqual(edit["metadata"]["labels"].get(prefix + "edit"), "true")
        self.assertEqual({verb for rule in view["rules"] for verb in rule["verbs"]}, {"get", "list", "watch"})
        self.assertEqual({name.split("/")[0] for rule in edit["rules"] for name in rule["resources"]},
                         {"mcpservers", "mcptoolsets"})

    def test_the_operator_makes_a_gateway_only_when_there_is_a_default_one(self):
        create = Right("operator", "create", "portolan.dev", "mcpgateways", "", "release")
        without = Rights(chart.render({"defaultGateway": {"enabled": False}}))
        self.assertTrue(self.rights.allows(OPERATOR, create, chart.NAMESPACE))
        self.assertFalse(without.allows(OPERATOR, create, chart.NAMESPACE))

    def test_a_namespace_may_be_tenant_and_platform_at_once(self):
        values = {"tenantNamespaces": [chart.NAMESPACE], "platformNamespaces": [chart.NAMESPACE]}
        names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
                 for item in chart.render(values)]
        self.assertEqual(len(names), len(set(names)))
