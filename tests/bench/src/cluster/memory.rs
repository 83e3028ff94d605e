//! Resident memory of the processes in pods, from this machine's `/proc`.

use std::fs::{read, read_dir, read_to_string};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;

/// A process in a pod.
#[derive(Debug)]
pub(super) struct Process {
    /// Its command line.
    pub(super) command: Vec<String>,
    /// What is resident, in MiB.
    pub(super) rss: f64,
    /// Its share of what is resident, pages in common divided among those that have them, in MiB.
    pub(super) pss: f64,
}

/// The processes of a pod; none when its node is not this machine.
pub(super) fn processes(pod: &Pod) -> anyhow::Result<Vec<Process>> {
    let uid = pod.metadata.uid.as_deref().context("a pod without uid")?;
    let mut found = Vec::new();
    for entry in read_dir("/proc")?.flatten() {
        let folder = entry.path();
        let Some(pid) = folder.file_name().and_then(|name| name.to_str()).filter(|name| is_number(name)) else {
            continue;
        };
        // A process that ends while it is looked at is none.
        let Ok(groups) = read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        if !in_pod(&groups, uid) {
            continue;
        }
        found.extend(process(pid));
    }
    Ok(found)
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a `/proc/PID/cgroup` is of the pod: the cgroup driver writes its uid with dashes or with underscores.
fn in_pod(groups: &str, uid: &str) -> bool {
    groups.contains(uid) || groups.contains(&uid.replace('-', "_"))
}

fn process(pid: &str) -> Option<Process> {
    let command = read(format!("/proc/{pid}/cmdline")).ok()?;
    let command: Vec<String> = command
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Process { command, rss: mib(&rollup, "Rss:")?, pss: mib(&rollup, "Pss:")? })
}

fn mib(rollup: &str, name: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let this = process(&std::process::id().to_string()).expect("it runs");
        assert!(this.rss > 0.5 && this.pss > 0.0 && this.pss <= this.rss, "{this:?}");
        assert!(!this.command.is_empty());
    }

    #[test]
    fn a_pod_is_found_by_its_uid_in_either_spelling() {
        let uid = "8f1c-22";
        assert!(in_pod("4:memory:/kubepods/burstable/pod8f1c-22/abc\n", uid));
        assert!(in_pod("0::/kubepods.slice/kubepods-pod8f1c_22.slice/x\n", uid));
        assert!(!in_pod("0::/user.slice\n", uid));
    }
}
