//! Every case in `cases/` meets the verdict that its first lines name. The same files are applied to a real API server
//! by the cluster suite, so a fragment named there must be in what either of them says.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::cel;
use portolan_crds::{
    MCPGateway, MCPServer, MCPToolset,
    admission::{Rejected, admit},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use support::{Case, cases};

fn verdict(case: &Case) -> Result<Value, Rejected> {
    match case.kind() {
        "MCPServer" => admit::<MCPServer>(&case.object).map(|object| serde_json::to_value(object).unwrap()),
        "MCPGateway" => admit::<MCPGateway>(&case.object).map(|object| serde_json::to_value(object).unwrap()),
        "MCPToolset" => admit::<MCPToolset>(&case.object).map(|object| serde_json::to_value(object).unwrap()),
        other => panic!("{}: no such kind: {other}", case.name),
    }
}

#[test]
fn every_case_meets_its_verdict() {
    let mut wrong = Vec::new();
    for case in cases() {
        match (verdict(&case), case.rejected.is_empty()) {
            (Ok(_), true) => {}
            (Ok(_), false) => wrong.push(format!("{}: admitted", case.name)),
            (Err(rejected), true) => wrong.push(format!("{}: {rejected}", case.name)),
            (Err(rejected), false) => {
                let said = rejected.to_string();
                wrong.extend(
                    case.rejected
                        .iter()
                        .filter(|fragment| !said.contains(fragment.as_str()))
                        .map(|fragment| format!("{}: {fragment:?} is not in: {said}", case.name)),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_refuses_a_case() {
    let mut unheard: BTreeSet<_> = support::schemas()
        .iter()
        .flat_map(|(kind, schema)| {
            let mut rules = Vec::new();
            collect_rules(schema, "", &mut rules);
            rules.into_iter().map(move |(path, rule)| (kind.clone(), path, rule))
        })
        .collect();
    assert!(unheard.len() > 40, "only {} rules were found", unheard.len());

    for case in cases().iter().filter(|case| !case.rejected.is_empty()) {
        let schema = support::schema(case.kind());
        let object = cel::apply_defaults(&schema, &case.object);
        for error in cel::Validator::new().validate(&schema, &object, None).err().into_iter().flatten() {
            unheard.remove(&(case.kind().to_owned(), any_index(&error.field_path), error.rule));
        }
    }
    assert!(unheard.is_empty(), "no case breaks: {unheard:#?}");
}

/// Every rule below a schema, with the path that its violation carries.
fn collect_rules(schema: &Value, path: &str, rules: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let field = rule["fieldPath"].as_str().unwrap_or_default();
        rules.push((format!("{path}{field}"), rule["rule"].as_str().unwrap().to_owned()));
        assert!(rule["message"].is_string(), "{path}: a rule without a message: {rule}");
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect_rules(field, &path, rules);
    }
    if schema["items"].is_object() {
        collect_rules(&schema["items"], &format!("{path}[]"), rules);
    }
}

fn any_index(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| format!("{path}[]{}", part.split_once(']').map_or("", |(_, rest)| rest)))
}

#[test]
fn an_admitted_object_passes_the_rules_again_and_stays_as_it_is() {
    for case in cases().iter().filter(|case| case.rejected.is_empty()) {
        let admitted = verdict(case).unwrap();
        let again = Case { object: admitted.clone(), ..case.clone() };
        assert_eq!(verdict(&again).unwrap(), admitted, "{}", case.name);
        match case.kind() {
            "MCPServer" => serde_json::from_value::<MCPServer>(admitted).unwrap().validate_cel().unwrap(),
            "MCPToolset" => serde_json::from_value::<MCPToolset>(admitted).unwrap().validate_cel().unwrap(),
            _ => serde_json::from_value::<MCPGateway>(admitted).unwrap().validate_cel().unwrap(),
        }
    }
}

#[test]
fn a_file_and_the_api_server_fill_in_the_same_defaults() {
    for case in cases().iter().filter(|case| case.rejected.is_empty() && !case.name.contains("null")) {
        let from_file = match case.kind() {
            "MCPServer" => serde_json::to_value(serde_json::from_value::<MCPServer>(case.object.clone()).unwrap()),
            "MCPToolset" => serde_json::to_value(serde_json::from_value::<MCPToolset>(case.object.clone()).unwrap()),
            _ => serde_json::to_value(serde_json::from_value::<MCPGateway>(case.object.clone()).unwrap()),
        };
        assert_eq!(from_file.unwrap(), verdict(case).unwrap(), "{}", case.name);
    }
}

#[test]
fn a_violation_never_repeats_the_value_of_a_variable() {
    let password = "p".repeat(32_769);
    let object = serde_json::json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "MCPServer", "metadata": {"name": "case"},
        "spec": {"container": {"image": "a", "transport": "Stdio", "command": ["a"], "env": [{"name": "A", "value": password}]}},
    });
    let said = admit::<MCPServer>(&object).unwrap_err().to_string();
    assert!(said.contains("spec.container.env[0].value") && !said.contains("ppp"), "{said}");
}

#[test]
fn the_status_of_a_new_object_is_left_out() {
    let mut case = cases().into_iter().find(|case| case.name == "server-minimal-stdio").unwrap();
    case.object["status"] = serde_json::json!({"replicas": 7, "nonsense": true});
    assert_eq!(verdict(&case).unwrap().get("status"), None);
}

#[test]
fn every_object_of_the_examples_is_admitted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files = Vec::new();
    yaml_files(&root, &mut files);
    let mut kinds = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(&root).unwrap().display().to_string();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(!objects.is_empty(), "{shown} holds no object");
        for object in objects {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let case = Case { name: format!("{shown}: {kind}"), rejected: Vec::new(), object };
            match kind.as_str() {
                "Secret" => keeps_every_field::<Secret>(&case),
                "ConfigMap" => keeps_every_field::<ConfigMap>(&case),
                _ => drop(verdict(&case).unwrap_or_else(|rejected| panic!("{}: {rejected}", case.name))),
            }
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["ConfigMap", "MCPGateway", "MCPServer", "MCPToolset", "Secret"]);
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml") {
            found.push(path);
        }
    }
}

/// A field that the type does not know would be dropped by the API server without a word.
fn keeps_every_field<K: Serialize + DeserializeOwned>(case: &Case) {
    let object: K =
        serde_json::from_value(case.object.clone()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    assert_eq!(serde_json::to_value(object).unwrap(), case.object, "{}", case.name);
}
