//! Processes of the cluster that `tests/kube` starts, as its node has them: a pod's, found by its cgroup, and components,
//! found by their records. No other process is ever signalled.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(Pid);

impl Process {
    /// The one in a pod that was started as `portolan COMMAND`.
    ///
    /// # Panics
    /// There is none on this machine: the cluster is not the one that `tests/kube` starts.
    #[must_use]
    pub fn of(pod: &Pod, command: &str) -> Self {
        Self::find(pod, command).unwrap_or_else(|| panic!("{} has a process `portolan {command}` here", pod.name_any()))
    }

    /// The same, where there is one at the moment.
    #[must_use]
    pub fn find(pod: &Pod, command: &str) -> Option<Self> {
        let group = format!("/pod{}/", pod.uid()?);
        let all = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.find(|pid| is_in(*pid, &group) && runs(*pid, command)).map(|pid| Self(Pid::from_raw(pid)))
    }

    /// A component, by the record that `tests/kube` keeps of it beside the kubeconfig.
    ///
    /// # Panics
    /// It does not run, or the cluster is another one.
    #[must_use]
    pub fn component(name: &str) -> Self {
        let kubeconfig = PathBuf::from(std::env::var("KUBECONFIG").expect("the suite is run by tests/kube/run"));
        let file = kubeconfig.with_file_name("pids").join(name);
        let record = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let pid = record.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a record begins with a pid");
        assert_eq!(identity(pid).as_deref(), Some(record.trim()), "{name} is the process that was started");
        Self(Pid::from_raw(pid))
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// It has ended.
    pub fn signal(self, signal: Signal) {
        kill(self.0, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.0));
    }

    /// Lets it do nothing until what is returned is dropped, whatever comes.
    ///
    /// # Panics
    /// It has ended.
    #[must_use]
    pub fn pause(self) -> Paused {
        self.signal(Signal::SIGSTOP);
        Paused(self)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        identity(self.0.as_raw()).is_some()
    }
}

/// A process that does nothing.
#[derive(Debug)]
pub struct Paused(Process);

impl Drop for Paused {
    fn drop(&mut self) {
        // One that was ended meanwhile needs nothing.
        let _gone = kill(self.0.0, Signal::SIGCONT);
    }
}

fn is_in(pid: i32, group: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(group))
}

fn runs(pid: i32, command: &str) -> bool {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split('\0');
    words.next().is_some_and(|program| program.ends_with("portolan")) && words.next() == Some(command)
}

/// Pid, start time and boot, as `tests/kube/lib/process.sh` writes them; none of a process that has ended.
fn identity(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may have spaces in it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    (!matches!(*fields.first()?, "Z" | "X")).then(|| Some(format!("{pid} {} {}", fields.get(19)?, boot.trim())))?
}
