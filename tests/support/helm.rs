//! The release that `hack/cluster-install` made, upgraded and taken back as whoever runs a cluster does it.

use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::{PLATFORM, printed};
use crate::paths;

/// What the release is called.
const RELEASE: &str = "portolan";

/// A chart with the values that suites install it with, and the tag of its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The chart.
    pub chart: PathBuf,
    /// Its values.
    pub values: PathBuf,
    /// The tag of the images of operator, gateways and bridges.
    pub tag: String,
}

impl Version {
    /// What this tree is.
    ///
    /// # Panics
    /// It has no images: `make static images` makes them.
    #[must_use]
    pub fn of_this_tree() -> Self {
        Self::below("", "target/images/tag")
    }

    /// The release before, as `hack/previous` built it.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    pub fn before() -> Self {
        Self::below("target/previous/source/", "target/previous/images/tag")
    }

    fn below(source: &str, tag: &str) -> Self {
        let path = |path: &str| paths::repo(&format!("{source}{path}"));
        let tag = std::fs::read_to_string(paths::repo(tag)).expect("its images were built");
        Self { chart: path("charts/portolan"), values: path("tests/cluster/values.yaml"), tag: tag.trim().to_owned() }
    }

    /// Installs it, or upgrades to it what is installed, with further arguments for helm, and returns when its operator is ready.
    ///
    /// # Panics
    /// helm says that it failed.
    pub async fn install(&self, more: &[&str]) {
        self.upgrade(&self.tag, &[&["--wait", "--timeout", "3m"], more].concat()).await;
    }

    /// The same with the images of another version, and without waiting for an operator that may not know this chart.
    ///
    /// # Panics
    /// helm says that it failed.
    pub async fn install_images_of(&self, other: &Self, more: &[&str]) {
        self.upgrade(&other.tag, more).await;
    }

    async fn upgrade(&self, tag: &str, more: &[&str]) {
        let images = format!("image.tag={tag},bridge.image.tag={tag}");
        let (chart, values) = (self.chart.display().to_string(), self.values.display().to_string());
        let all = ["upgrade", "--install", RELEASE, &chart, "--namespace", PLATFORM, "--values", &values];
        helm(&[&all[..], &["--set", &images], more].concat()).await.expect("it is installed");
    }
}

/// The number of the release as it is now, for [`go_back`].
///
/// # Panics
/// There is none.
pub async fn number() -> u64 {
    let text = helm(&["status", RELEASE, "--namespace", PLATFORM, "--output", "json"]).await.expect("it is installed");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status["version"].as_u64().expect("a release has a number")
}

/// Sets values of the release, and leaves the others as they are. Does not wait for what comes of it.
///
/// # Panics
/// helm says that it failed.
pub async fn set(values: &str) {
    let chart = paths::repo("charts/portolan").display().to_string();
    let all = ["upgrade", RELEASE, &chart, "--namespace", PLATFORM, "--reuse-values", "--set", values];
    helm(&all).await.expect("it is upgraded");
}

/// Goes back to the release of that number.
///
/// # Panics
/// helm says that it failed.
pub async fn go_back(number: u64) {
    let number = number.to_string();
    let all = ["rollback", RELEASE, &number, "--namespace", PLATFORM, "--wait", "--timeout", "3m"];
    helm(&all).await.expect("the release before is back");
}

/// Takes the release away with its custom resource definitions.
///
/// # Panics
/// helm or kubectl say that they failed.
pub async fn uninstall() {
    helm(&["uninstall", RELEASE, "--namespace", PLATFORM, "--wait", "--timeout", "3m"]).await.expect("it is gone");
    let kinds = ["mcpservers", "mcpgateways", "mcptoolsets"].map(|kind| format!("crd/{kind}.portolan.dev"));
    let [servers, gateways, toolsets] = &kinds;
    let all = ["delete", "--ignore-not-found", "--timeout", "3m", servers, gateways, toolsets];
    printed("kubectl", &all).await.expect("they are gone");
}

async fn helm(arguments: &[&str]) -> Result<String, String> {
    printed("helm", arguments).await
}
