//! The files that `-f` names, and the last good contents of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_crds::{MCPGateway, MCPServer, MCPToolset};

use super::objects::{self, Contents, Data, Entry, Name, Object};
use super::problem::{Origin, Problem};

/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Every object of every file.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    pub(super) servers: BTreeMap<Name, Located<MCPServer>>,
    pub(super) toolsets: BTreeMap<Name, Located<MCPToolset>>,
    pub(super) gateway: Option<(Name, Located<MCPGateway>)>,
    /// A file that has never been right and may hold the gateway: until it is read, nobody knows whom that admits.
    pub(super) unread_gateway: Option<PathBuf>,
    pub(super) secrets: BTreeMap<Name, Data>,
    pub(super) config_maps: BTreeMap<Name, Data>,
}

/// An object and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) object: T,
    pub(super) origin: Origin,
    /// The object as written, without defaults.
    pub(super) written: serde_json::Value,
}

/// What one look at the files brought.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The latest good objects of every file.
    pub(super) objects: Objects,
    /// Why the latest contents of some files are not among them.
    pub(super) problems: Vec<Problem>,
    /// Documents of kinds that are not read.
    pub(super) ignored: Vec<Problem>,
    /// What became of files that are not right, or are right again.
    pub(super) consequences: Vec<String>,
}

/// Contents that cannot be taken.
struct Bad {
    problems: Vec<Problem>,
    /// Whether an `MCPGateway` may be among them.
    may_hold_gateway: bool,
}

/// Files and directories to read, and what was last read from them.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    good: BTreeMap<PathBuf, Contents>,
    bad: BTreeSet<PathBuf>,
}

impl Files {
    /// What `-f` names. Nothing is read yet.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, good: BTreeMap::new(), bad: BTreeSet::new() }
    }

    /// Directories in which changes matter.
    pub(super) fn directories(&self) -> Vec<PathBuf> {
        let directory = |path: &PathBuf| match path.parent() {
            _ if path.is_dir() => path.clone(),
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut directories: Vec<PathBuf> = self.paths.iter().map(directory).collect();
        directories.sort();
        directories.dedup();
        directories
    }

    /// Reads everything anew. A file that is not right keeps its last good contents; one that is gone has none.
    pub(super) fn load(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut contents = BTreeMap::new();
        let mut bad = BTreeSet::new();
        for path in self.list(&mut loaded) {
            let shown = path.display();
            match read(&path) {
                Ok(good) => {
                    if self.bad.contains(&path) {
                        loaded.consequences.push(format!("{shown} is right again."));
                    }
                    contents.insert(path, good);
                }
                Err(found) => {
                    loaded.problems.extend(found.problems);
                    bad.insert(path.clone());
                    if let Some((path, good)) = self.good.remove_entry(&path) {
                        loaded.consequences.push(format!("The last good version of {shown} serves on."));
                        contents.insert(path, good);
                        continue;
                    }
                    loaded.consequences.push(format!("Nothing of {shown} is served until it is right."));
                    if found.may_hold_gateway {
                        loaded.objects.unread_gateway = Some(path);
                    }
                }
            }
        }
        self.bad = bad;
        let mut seen = BTreeMap::new();
        for file in contents.values() {
            loaded.ignored.extend(file.ignored.iter().cloned());
            for entry in &file.entries {
                if let Some(problem) = loaded.objects.add(entry, &mut seen) {
                    loaded.problems.push(problem);
                }
            }
        }
        self.good = contents;
        loaded
    }

    /// Every file, in the order of its name: as kubectl, a directory's own YAML and JSON files.
    fn list(&self, loaded: &mut Loaded) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in &self.paths {
            match std::fs::read_dir(path) {
                Ok(entries) => {
                    files.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_manifest(path)))
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => files.push(path.clone()),
                // A file that was named and is gone is not there any more: that is no mistake in it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    loaded.problems.push(whole_file(path, error.to_string()));
                    let known = self.good.keys().filter(|file| file.parent() == Some(path.as_path()));
                    let before = files.len();
                    files.extend(known.cloned());
                    if files.len() == before {
                        loaded.objects.unread_gateway = Some(path.clone());
                    }
                }
            }
        }
        files.sort();
        files.dedup();
        files
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json")) && path.is_file()
}

fn whole_file(path: &Path, message: String) -> Problem {
    Problem { file: path.into(), line: 0, path: String::new(), message }
}

fn read(path: &Path) -> Result<Contents, Bad> {
    let bad = |message: String| Bad { problems: vec![whole_file(path, message)], may_hold_gateway: true };
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(format!("the file is larger than {} MiB: split it", MAX_FILE_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("the file is not UTF-8 text".into()))?;
    objects::read(&Arc::from(path), &text)
        .map_err(|problems| Bad { problems, may_hold_gateway: text.contains("MCPGateway") })
}

impl Objects {
    /// Takes in `entry`, unless an object of that kind and name is already there.
    fn add(&mut self, entry: &Entry, seen: &mut BTreeMap<(&'static str, Name), Origin>) -> Option<Problem> {
        let Entry { name, origin, written, object } = entry;
        let kind = object.kind();
        if let Some(first) = seen.get(&(kind, name.clone())) {
            let place = format!("{}:{}", first.file.display(), first.lines.of(""));
            return Some(origin.problem("metadata.name", format!("{kind} {name} is already at {place}")));
        }
        seen.insert((kind, name.clone()), origin.clone());
        match object {
            Object::Server(server) => {
                self.servers.insert(name.clone(), located((**server).clone(), origin, written));
            }
            Object::Toolset(toolset) => {
                self.toolsets.insert(name.clone(), located((**toolset).clone(), origin, written));
            }
            Object::Gateway(gateway) => match &self.gateway {
                Some((first, _)) => {
                    let message = format!("dev is one gateway and takes {first}: remove one of them");
                    return Some(origin.problem("kind", message));
                }
                None => self.gateway = Some((name.clone(), located((**gateway).clone(), origin, written))),
            },
            Object::Secret(data) => _ = self.secrets.insert(name.clone(), data.clone()),
            Object::ConfigMap(data) => _ = self.config_maps.insert(name.clone(), data.clone()),
        }
        None
    }
}

fn located<T>(object: T, origin: &Origin, written: &serde_json::Value) -> Located<T> {
    Located { object, origin: origin.clone(), written: written.clone() }
}
