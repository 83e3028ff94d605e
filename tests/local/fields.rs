//! `docs/fields.md` names every field that a user can write, and for each a test that shows what it does; `docs/bad-input.md`
//! what goes wrong, and the tests that show what happens then; `docs/reliability.md` the same of what fails or is changed.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use portolan_tests::paths;
use serde_json::Value;

/// Every field without fields of its own, as `MCPServer.spec.container.env[].name`.
fn fields_of_the_crds() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for (_, crd) in portolan_crds::crds() {
        let crd = serde_json::to_value(crd).expect("JSON");
        let kind = crd["spec"]["names"]["kind"].as_str().expect("a kind");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        collect(&format!("{kind}.spec"), schema, &mut fields);
    }
    fields
}

fn collect(path: &str, schema: &Value, fields: &mut BTreeSet<String>) {
    if schema["type"] == "array" {
        return collect(&format!("{path}[]"), &schema["items"], fields);
    }
    match schema["properties"].as_object().filter(|properties| !properties.is_empty()) {
        Some(properties) => {
            properties.iter().for_each(|(name, schema)| collect(&format!("{path}.{name}"), schema, fields));
        }
        None => assert!(fields.insert(path.to_owned()), "{path} twice"),
    }
}

/// The table's rows: a field, and the suite and name of the test.
fn documented() -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(paths::repo("docs/fields.md")).expect("the table is there");
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [field, test] = cells.as_slice() else { panic!("field and test: {line}") };
        let (suite, name) = test.split_once("::").unwrap_or_else(|| panic!("suite::test: {line}"));
        let before = rows.insert((*field).to_owned(), (suite.to_owned(), name.to_owned()));
        assert!(before.is_none(), "{field} twice");
    }
    rows
}

/// The names of a suite's test functions.
fn tests_of(suite: &str) -> BTreeSet<String> {
    let (file, folder) = (paths::repo(&format!("tests/cluster/{suite}.rs")), format!("tests/cluster/{suite}"));
    let mut files = vec![file];
    if let Ok(entries) = std::fs::read_dir(paths::repo(&folder)) {
        files.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    files.iter().filter(|file| file.exists()).flat_map(|file| tests_in(file)).collect()
}

fn tests_in(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a source file");
    let lines: Vec<_> = text.lines().collect();
    let tests = lines.windows(2).filter(|pair| pair[0].trim() == "#[tokio::test]");
    tests
        .map(|pair| {
            let name = pair[1].trim().strip_prefix("async fn ").and_then(|rest| rest.split_once('('));
            name.unwrap_or_else(|| panic!("a test function in {}: {}", file.display(), pair[1])).0.to_owned()
        })
        .collect()
}

#[test]
fn every_field_is_in_the_table_and_the_table_has_no_other() {
    let documented: BTreeSet<_> = documented().into_keys().collect();
    let fields = fields_of_the_crds();
    let missing: Vec<_> = fields.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&fields).collect();
    assert!(missing.is_empty(), "write a test for each of these, and add it to docs/fields.md: {missing:#?}");
    assert!(gone.is_empty(), "docs/fields.md has fields that the CRDs do not have: {gone:#?}");
}

#[test]
fn every_test_of_the_table_exists() {
    for (field, (suite, name)) in documented() {
        let tests = tests_of(&suite);
        assert!(tests.contains(&name), "{field}: {suite} has no test {name}; it has {tests:#?}");
    }
}

#[test]
fn every_test_that_the_page_on_reliability_names_exists_and_it_names_every_one() {
    let text = std::fs::read_to_string(paths::repo("docs/reliability.md")).expect("the page is there");
    let (_, section) = text.split_once("## What fails, and what happens").expect("its section");
    let (section, _) = section.split_once("\n## ").expect("another one after it");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let named = rows.filter_map(|row| row.rsplit('`').nth(1)).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(named, tests_of("failure"));
}

#[test]
fn every_test_that_the_page_on_bad_input_names_exists() {
    let text = std::fs::read_to_string(paths::repo("docs/bad-input.md")).expect("the page is there");
    let named: Vec<_> = text.split('`').filter_map(|piece| piece.split_once(".rs::")).collect();
    assert!(!named.is_empty(), "the page names no test");
    for (file, test) in named {
        let source = paths::repo(&format!("{file}.rs"));
        let source = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        assert!(source.contains(&format!("fn {test}(")), "{file}.rs has no test {test}");
    }
}
