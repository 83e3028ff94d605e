//! The cases and the schemas that they are held to.

use std::{fs, path::Path};

use serde_json::Value;

/// One object and what is said about it.
#[derive(Clone)]
pub(crate) struct Case {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// Fragments that the refusal must contain: none when the object is admitted.
    pub(crate) rejected: Vec<String>,
    /// The object.
    pub(crate) object: Value,
}

impl Case {
    pub(crate) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

/// Every file in `cases/`. Lines that start with `# rejected: ` name a fragment of the refusal.
pub(crate) fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let rejected =
                text.lines().filter_map(|line| line.strip_prefix("# rejected: ")).map(str::to_owned).collect();
            let object = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            Case { name, rejected, object }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() > 100, "only {} cases were found", cases.len());
    cases
}

/// Kind and schema of every CRD.
pub(crate) fn schemas() -> Vec<(String, Value)> {
    portolan_crds::crds()
        .into_iter()
        .map(|(_, crd)| {
            let crd = serde_json::to_value(crd).unwrap();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            (kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        })
        .collect()
}

/// Schema of one kind.
pub(crate) fn schema(kind: &str) -> Value {
    schemas().into_iter().find(|(name, _)| name == kind).unwrap().1
}
