"""What the rendered Roles and bindings let a service account do, and the tables of what it must and must not."""
from dataclasses import dataclass
from pathlib import Path

TABLES = Path(__file__).parent
# Namespaces are enrolled as `tenant` or `platform`, of which the release's is one; `other` is not enrolled, and
# `cluster` stands for a request that names no namespace.
KINDS = ("tenant", "platform", "release", "other", "cluster")


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource; `name` is empty unless the right is about one object."""

    account: str
    verb: str
    group: str
    resource: str
    name: str
    kind: str

    def __str__(self) -> str:
        plural, _, sub = self.resource.partition("/")
        what = plural + (f".{self.group}" if self.group else "") + (f"/{sub}" if sub else "")
        return f"{self.account}: {self.verb} {what} {self.name or '-'} in {self.kind}"


def table(name: str) -> list[Right]:
    """Rows of a table; lists of verbs and kinds of namespace are written with commas."""
    rows = []
    for number, line in enumerate((TABLES / name).read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        columns = line.split("\t")
        if len(columns) != 5:
            raise ValueError(f"{name}:{number}: write account, verbs, resource, name and kinds, with tabs between them")
        account, verbs, what, named, kinds = columns
        if account not in ("operator", "gateway", "both") or not set(kinds.split(",")) <= set(KINDS):
            raise ValueError(f"{name}:{number}: unknown account or kind of namespace")
        plural, _, sub = what.partition("/")
        resource, _, group = plural.partition(".")
        resource += f"/{sub}" if sub else ""
        for who in ("operator", "gateway") if account == "both" else (account,):
            for verb in verbs.split(","):
                for kind in kinds.split(","):
                    rows.append(Right(who, verb, group, resource, "" if named == "-" else named, kind))
    return rows


class Rights:
    """The rules that are bound to service accounts, by namespace; "" is the whole cluster."""

    def __init__(self, objects: list[dict]):
        self.rules: dict[tuple[str, str], dict[str, list[dict]]] = {}
        roles = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
                 for item in objects if item["kind"] in ("Role", "ClusterRole")}
        for binding in (item for item in objects if item["kind"] in ("RoleBinding", "ClusterRoleBinding")):
            where = binding["metadata"].get("namespace", "")
            reference = binding["roleRef"]
            home = where if reference["kind"] == "Role" else ""
            # A KeyError here is a binding to a role that the chart does not make.
            rules = roles[reference["kind"], home, reference["name"]]["rules"]
            for subject in binding["subjects"]:
                if subject["kind"] != "ServiceAccount":
                    raise ValueError(f"{binding['metadata']['name']} binds a {subject['kind']}")
                account = (subject["namespace"], subject["name"])
                self.rules.setdefault(account, {}).setdefault(where, []).extend(rules)

    def allows(self, account: tuple[str, str], right: Right, namespace: str) -> bool:
        """Kubernetes' own decision: a rule of the namespace or of the whole cluster that covers every part."""
        rules = self.rules.get(account, {})
        bound = rules.get("", []) + (rules.get(namespace, []) if namespace else [])
        return any(
            covers(rule["verbs"], right.verb)
            and covers(rule.get("apiGroups", []), right.group)
            and covers(rule.get("resources", []), right.resource)
            and (not rule.get("resourceNames") or right.name in rule["resourceNames"])
            for rule in bound
        )

    def granted(self, account: tuple[str, str]) -> dict[str, set[tuple]]:
        """(verb, group, resource, name) by namespace."""
        return {
            namespace: {
                (verb, group, resource, name)
                for rule in rules
                for verb in rule["verbs"]
                for group in rule.get("apiGroups", [])
                for resource in rule.get("resources", []) + rule.get("nonResourceURLs", [])
                for name in rule.get("resourceNames") or [""]
            }
            for namespace, rules in self.rules.get(account, {}).items()
        }


def covers(patterns: list[str], value: str) -> bool:
    return "*" in patterns or value in patterns
