//! A server that runs elsewhere, with what its file and its Secrets say of it.

use portolan_bridge::config::Upstream;
use portolan_bridge::remote::{self, Allowed, Identity, Settings, Transport};
use portolan_crds::conditions::reasons;
use portolan_crds::server::{self, CaSource, RemoteTransport, RequiredKeyRef};

use super::environment::Unresolved;
use super::files::Objects;
use super::objects::{Data, Name};

/// The keys of a Secret of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A server that runs elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remote {
    url: String,
    transport: RemoteTransport,
    authorities: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    header: Option<(String, Vec<u8>)>,
    allowed: Vec<String>,
}

/// What `remote` of the server `name` says; `allowed` are hosts that may have private addresses.
pub(super) fn resolve(
    name: &Name,
    remote: &server::Remote,
    objects: &Objects,
    allowed: &[String],
) -> Result<Remote, Vec<Unresolved>> {
    let lookup = Lookup { name, objects };
    let tls = remote.tls.as_ref();
    let ca = tls.and_then(|tls| tls.ca_certificate_ref.as_ref()?.source());
    let client = tls.and_then(|tls| tls.client_certificate_ref.as_ref());
    let mut unresolved = Vec::new();
    let mut keep = |found: Result<Vec<u8>, Unresolved>| found.map_err(|error| unresolved.push(error)).ok();
    let authorities = ca.and_then(|source| {
        let path = "spec.remote.tls.caCertificateRef";
        keep(match source {
            CaSource::ConfigMap(key) => lookup.config_map(key, path),
            CaSource::Secret(key) => lookup.secret(&key.name, &key.key, path),
        })
    });
    let identity = client.and_then(|client| {
        let mut of = |key| keep(lookup.secret(&client.name, key, "spec.remote.tls.clientCertificateRef"));
        of(CERTIFICATE).zip(of(KEY))
    });
    let header = remote.backend_auth.sent_header().and_then(|header| {
        let RequiredKeyRef { name, key } = &header.secret_key_ref;
        let value = keep(lookup.secret(name, key, "spec.remote.backendAuth.header.secretKeyRef"))?;
        Some((header.name.clone(), value))
    });
    if !unresolved.is_empty() {
        return Err(unresolved);
    }
    let (url, transport, allowed) = (remote.url.clone(), remote.transport, allowed.to_vec());
    Ok(Remote { url, transport, authorities, identity, header, allowed })
}

impl Remote {
    /// What its bridge is told. This machine may be what the URL names: it is the developer's own.
    ///
    /// # Errors
    /// Something of it cannot be used, in words.
    pub(super) fn upstream(self) -> Result<Upstream, String> {
        let settings = Settings {
            url: self.url,
            transport: match self.transport {
                RemoteTransport::StreamableHttp => Transport::StreamableHttp,
                RemoteTransport::Sse => Transport::Sse,
            },
            authorities: self.authorities,
            identity: self.identity.map(|(certificate, key)| Identity { certificate, key }),
            header: self.header,
            allowed: Allowed { hosts: self.allowed, loopback: true },
        };
        let remote = remote::Remote::new(&settings).map_err(|invalid| invalid.to_string())?;
        Ok(Upstream::Remote(Box::new(remote)))
    }
}

struct Lookup<'a> {
    name: &'a Name,
    objects: &'a Objects,
}

impl Lookup<'_> {
    fn secret(&self, name: &str, key: &str, path: &str) -> Result<Vec<u8>, Unresolved> {
        let found = self.objects.secrets.get(&self.name.sibling(name));
        self.value("Secret", reasons::SECRET_NOT_FOUND, found, name, key, path)
    }

    fn config_map(&self, RequiredKeyRef { name, key }: &RequiredKeyRef, path: &str) -> Result<Vec<u8>, Unresolved> {
        let found = self.objects.config_maps.get(&self.name.sibling(name));
        self.value("ConfigMap", reasons::CONFIG_MAP_NOT_FOUND, found, name, key, path)
    }

    fn value(
        &self,
        kind: &str,
        absent: &'static str,
        found: Option<&Data>,
        name: &str,
        key: &str,
        path: &str,
    ) -> Result<Vec<u8>, Unresolved> {
        let unresolved = |reason, message| Unresolved { reason, path: path.to_owned(), message };
        let data =
            found.ok_or_else(|| unresolved(absent, format!("the files have no {kind} {}", self.name.sibling(name))))?;
        let value = data.get(key).cloned();
        value.ok_or_else(|| unresolved(reasons::KEY_NOT_FOUND, format!("{kind} {name} has no key {key}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name { namespace: "ns".into(), name: "a".into() }
    }

    fn data(entries: &[(&str, &str)]) -> Data {
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn remote(yaml: &str) -> server::Remote {
        serde_saphyr::from_str(yaml).expect("a remote")
    }

    const ALL: &str = "{url: 'https://a.example/mcp', tls: {caCertificateRef: {configMapKeyRef: {name: ca, key: c}}, \
        clientCertificateRef: {name: me}}, backendAuth: {type: Header, header: {name: X-Key, secretKeyRef: {name: s, key: k}}}}";

    #[test]
    fn certificates_and_credentials_come_from_the_objects_of_the_same_namespace() {
        let mut objects = Objects::default();
        objects.config_maps.insert(name().sibling("ca"), data(&[("c", "authority")]));
        objects.secrets.insert(name().sibling("me"), data(&[("tls.crt", "certificate"), ("tls.key", "key")]));
        objects.secrets.insert(name().sibling("s"), data(&[("k", "secret")]));
        let found = resolve(&name(), &remote(ALL), &objects, &[]).expect("resolves");
        assert_eq!(found.authorities.as_deref(), Some(&b"authority"[..]));
        assert_eq!(found.identity, Some((b"certificate".to_vec(), b"key".to_vec())));
        assert_eq!(found.header, Some(("X-Key".to_owned(), b"secret".to_vec())));
        assert!(found.upstream().is_err_and(|message| message.contains("caCertificateRef")), "no PEM is no authority");
    }

    #[test]
    fn everything_that_is_missing_is_told_with_the_field_that_needs_it() {
        let mut objects = Objects::default();
        objects.secrets.insert(name().sibling("me"), data(&[("tls.crt", "certificate")]));
        let missing = resolve(&name(), &remote(ALL), &objects, &[]).expect_err("missing");
        let told: Vec<_> = missing.iter().map(|one| (one.reason, one.path.as_str(), one.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ConfigMapNotFound", "spec.remote.tls.caCertificateRef", "the files have no ConfigMap ns/ca"),
                ("KeyNotFound", "spec.remote.tls.clientCertificateRef", "Secret me has no key tls.key"),
                ("SecretNotFound", "spec.remote.backendAuth.header.secretKeyRef", "the files have no Secret ns/s"),
            ]
        );
    }
}
