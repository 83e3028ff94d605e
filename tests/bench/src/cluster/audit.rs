//! Writes as the API server recorded them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use portolan_tests::cluster::PLATFORM;
use serde::Deserialize;

/// The operator's service account, of `charts/portolan/values.yaml`.
const OPERATOR: &str = "portolan-operator";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    name: String,
}

/// The audit log, from a place on.
pub(super) struct AuditLog {
    file: PathBuf,
    from: u64,
}

/// What the operator wrote.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Renewals of its Lease: proof that the log records it.
    pub(super) leases: u64,
    /// How often it wrote what, everything else.
    pub(super) others: BTreeMap<String, u64>,
}

impl Writes {
    /// How many, Leases aside.
    pub(super) fn count(&self) -> u64 {
        self.others.values().sum()
    }
}

impl AuditLog {
    /// The log, from its present end on; `None` where no cluster of ours keeps one.
    pub(super) fn from_now() -> anyhow::Result<Option<Self>> {
        let Some(file) = std::env::var_os("PORTOLAN_AUDIT_LOG").map(PathBuf::from) else { return Ok(None) };
        let length = std::fs::metadata(&file).with_context(|| format!("no audit log at {}", file.display()))?.len();
        Ok(Some(Self { file, from: length }))
    }

    /// What the operator wrote since.
    pub(super) fn writes(&self) -> anyhow::Result<Writes> {
        let mut file = std::fs::File::open(&self.file).context("the audit log cannot be read")?;
        file.seek(SeekFrom::Start(self.from))?;
        count(BufReader::new(file), &format!("system:serviceaccount:{PLATFORM}:{OPERATOR}"))
    }
}

fn count(log: impl BufRead, username: &str) -> anyhow::Result<Writes> {
    let mut writes = Writes::default();
    for line in log.split(b'\n') {
        // The last line may be half written; the next look has it whole.
        let Ok(entry) = serde_json::from_slice::<Entry>(&line?) else { continue };
        if entry.user.username != username || entry.stage != "ResponseComplete" {
            continue;
        }
        let Object { resource, subresource, name } = entry.object_ref;
        if resource == "leases" {
            writes.leases += 1;
            continue;
        }
        let kind = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        *writes.others.entry(format!("{} {kind} {name}", entry.verb)).or_default() += 1;
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_writes_count_and_its_lease_apart() {
        let line = |user: &str, verb: &str, resource: &str| {
            format!(
                r#"{{"stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"{resource}","name":"n"}}}}"#
            )
        };
        let log = [
            line("op", "update", "leases"),
            line("op", "patch", "deployments"),
            line("op", "patch", "deployments"),
            line("other", "patch", "deployments"),
            r#"{"stage":"ResponseComplete","verb":"pa"#.to_owned(),
        ]
        .join("\n");
        let writes = count(log.as_bytes(), "op").expect("read");
        assert_eq!((writes.leases, writes.count()), (1, 2));
        assert_eq!(writes.others.get("patch deployments n"), Some(&2));
    }
}
