//! The last good inputs on disk, sealed: a replica that starts while the API server is away serves from them.
//!
//! Layout: `version (1) | nonce (12) | AES-256-GCM(JSON)`. The gateway's name is authenticated, so that a file of
//! another gateway does not open.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::SystemTime;

use portolan_snapshot::Inputs;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

const VERSION: u8 = 1;
const FILE: &str = "inputs.sealed";

/// Where the last good inputs are kept.
#[derive(Clone, Debug)]
pub struct Seal {
    /// A directory of this process alone.
    pub directory: PathBuf,
    /// The file that holds the 32-byte key: mounted, so that it is there when the API server is not.
    pub key_file: PathBuf,
}

/// Why inputs were not sealed, or a sealed file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read, or is not a key.
    #[error("the key file {path} must hold 32 bytes: {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Forged, damaged, sealed with another key or for another gateway.
    #[error("the sealed inputs are not this gateway's")]
    Foreign,
    /// Written by another release.
    #[error("the sealed inputs have the unknown version {0}")]
    UnknownVersion(u8),
    /// Ours, but not inputs that this release reads.
    #[error("the sealed inputs cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The system has no randomness to give.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

impl SealError {
    /// A word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Key { .. } => "Key",
            Self::File { .. } => "File",
            Self::Foreign => "Foreign",
            Self::UnknownVersion(_) => "UnknownVersion",
            Self::Unreadable(_) => "Unreadable",
            Self::NoRandomness => "NoRandomness",
        }
    }
}

/// What was sealed last.
pub(crate) struct LastGood {
    pub(crate) inputs: Inputs,
    /// The file's own time: told to people, relied upon for nothing.
    pub(crate) sealed_at: SystemTime,
}

/// Seals and opens the file of one gateway.
pub(crate) struct Sealer {
    path: PathBuf,
    key: LessSafeKey,
    gateway: String,
}

impl Sealer {
    /// Reads the key.
    pub(crate) fn new(seal: &Seal, namespace: &str, name: &str) -> Result<Self, SealError> {
        let bad = |problem: String| SealError::Key { path: seal.key_file.clone(), problem };
        let bytes = std::fs::read(&seal.key_file).map_err(|error| bad(error.to_string()))?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| bad(format!("it holds {}", bytes.len())))?;
        Ok(Self { path: seal.directory.join(FILE), key: LessSafeKey::new(key), gateway: format!("{namespace}/{name}") })
    }

    /// Writes `inputs`, whole or not at all.
    pub(crate) fn seal(&self, inputs: &Inputs) -> Result<(), SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = serde_json::to_vec(inputs)?;
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.associated(), &mut sealed)
            .map_err(|_| SealError::Foreign)?;
        let written = self.write(&[&[VERSION], &nonce, &sealed]);
        written.map_err(|error| SealError::File { path: self.path.clone(), error })
    }

    /// Written beside and moved into place: a crash leaves the file before.
    fn write(&self, parts: &[&[u8]]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
    }

    /// Reads what was sealed last; `None` where nothing was.
    pub(crate) fn open(&self) -> Result<Option<LastGood>, SealError> {
        let (bytes, sealed_at) = match self.read() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SealError::File { path: self.path.clone(), error }),
        };
        let (&version, rest) = bytes.split_first().ok_or(SealError::Foreign)?;
        if version != VERSION {
            return Err(SealError::UnknownVersion(version));
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Foreign)?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), self.associated(), &mut sealed)
            .map_err(|_| SealError::Foreign)?;
        Ok(Some(LastGood { inputs: serde_json::from_slice(plain)?, sealed_at }))
    }

    fn read(&self) -> io::Result<(Vec<u8>, SystemTime)> {
        let mut file = File::open(&self.path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((bytes, file.metadata()?.modified()?))
    }

    fn associated(&self) -> Aad<Vec<u8>> {
        let mut data = vec![VERSION];
        data.extend_from_slice(b"portolan inputs ");
        data.extend_from_slice(self.gateway.as_bytes());
        Aad::from(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(directory: &tempfile::TempDir, key: u8, name: &str) -> Sealer {
        let key_file = directory.path().join(format!("key-{key}"));
        std::fs::write(&key_file, [key; 32]).expect("written");
        let seal = Seal { directory: directory.path().into(), key_file };
        Sealer::new(&seal, "portolan", name).expect("a good key")
    }

    fn inputs() -> Inputs {
        serde_saphyr::from_str(
            "{gateway: {apiVersion: portolan.dev/v1alpha1, kind: MCPGateway, metadata: {name: default}, \
             spec: {authentication: {anonymous: {}}}}, servers: [], slices: [], secret: {session.0: c2VjcmV0}}",
        )
        .expect("inputs")
    }

    #[test]
    fn sealed_inputs_open_for_the_same_gateway_and_key_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let ours = sealer(&directory, 1, "default");
        assert!(ours.open().expect("nothing is no error").is_none());
        ours.seal(&inputs()).expect("sealed");
        let opened = ours.open().expect("opens").expect("is there");
        assert_eq!(opened.inputs.secret, inputs().secret);
        for other in [sealer(&directory, 2, "default"), sealer(&directory, 1, "other")] {
            assert!(matches!(other.open(), Err(SealError::Foreign)));
        }
    }

    #[test]
    fn nothing_readable_is_on_disk_and_a_changed_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let ours = sealer(&directory, 1, "default");
        ours.seal(&inputs()).expect("sealed");
        let path = directory.path().join(FILE);
        let bytes = std::fs::read(&path).expect("is there");
        assert!(!bytes.windows(8).any(|window| window == b"c2VjcmV0" || window == b"MCPGatew"));
        for position in [0, 1, 14, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            std::fs::write(&path, changed).expect("written");
            assert!(ours.open().is_err(), "byte {position}");
        }
        std::fs::write(&path, [VERSION]).expect("written");
        assert!(matches!(ours.open(), Err(SealError::Foreign)));
    }
}
