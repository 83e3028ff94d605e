//! The environment, command and arguments of a server, as the kubelet would make them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use portolan_crds::conditions::reasons;
use portolan_crds::server::{Container, EnvFromSource, EnvSource, KeyRef};

use super::files::Objects;
use super::objects::{Data, Name};

/// A reference that leads nowhere, as the `ResolvedRefs` condition would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    /// The condition's reason.
    pub(super) reason: &'static str,
    /// The field that refers.
    pub(super) path: String,
    /// What is missing.
    pub(super) message: String,
}

/// Variables by name. The last one of a name counts.
pub(super) type Variables = BTreeMap<String, Vec<u8>>;

/// The variables that `container` of the server `name` asks for.
pub(super) fn variables(name: &Name, container: &Container, objects: &Objects) -> Result<Variables, Vec<Unresolved>> {
    let lookup = Lookup { name, objects };
    let mut variables = Variables::new();
    let mut unresolved = Vec::new();
    for (index, from) in container.env_from.iter().enumerate() {
        let path = format!("spec.container.envFrom[{index}]");
        let data = match from.source() {
            Some(EnvFromSource::Secret(secret)) => lookup.secret(&secret.name, secret.optional, &path),
            Some(EnvFromSource::ConfigMap(map)) => lookup.config_map(&map.name, map.optional, &path),
            None => continue,
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        match data {
            Ok(data) => {
                let entries = data.into_iter().flatten().filter(|(key, value)| is_variable(key, value));
                variables.extend(entries.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
            }
            Err(found) => unresolved.push(found),
        }
    }
    for (index, variable) in container.env.iter().enumerate() {
        let path = format!("spec.container.env[{index}]");
        let value = match variable.source() {
            Some(EnvSource::Value(text)) => Ok(Some(expand(text, &variables))),
            Some(EnvSource::Secret(key)) => {
                lookup.secret(&key.name, key.optional, &path).and_then(|data| entry("Secret", key, data, &path))
            }
            Some(EnvSource::ConfigMap(key)) => {
                lookup.config_map(&key.name, key.optional, &path).and_then(|data| entry("ConfigMap", key, data, &path))
            }
            None => continue,
        };
        match value {
            Ok(Some(value)) => _ = variables.insert(variable.name.clone(), value),
            Ok(None) => {}
            Err(found) => unresolved.push(found),
        }
    }
    if unresolved.is_empty() { Ok(variables) } else { Err(unresolved) }
}

/// `words` with `$(NAME)` expanded.
pub(super) fn words(words: &[String], variables: &Variables) -> Vec<OsString> {
    words.iter().map(|word| OsString::from_vec(expand(word, variables))).collect()
}

/// What the system can pass on: a name without `=`, neither with a NUL.
fn is_variable(key: &str, value: &[u8]) -> bool {
    !key.is_empty() && !key.contains(['=', '\0']) && !value.contains(&0)
}

struct Lookup<'a> {
    name: &'a Name,
    objects: &'a Objects,
}

impl<'a> Lookup<'a> {
    fn secret(&self, name: &str, optional: bool, path: &str) -> Result<Option<&'a Data>, Unresolved> {
        let found = self.objects.secrets.get(&self.name.sibling(name));
        self.object("Secret", reasons::SECRET_NOT_FOUND, found, name, optional, path)
    }

    fn config_map(&self, name: &str, optional: bool, path: &str) -> Result<Option<&'a Data>, Unresolved> {
        let found = self.objects.config_maps.get(&self.name.sibling(name));
        self.object("ConfigMap", reasons::CONFIG_MAP_NOT_FOUND, found, name, optional, path)
    }

    fn object(
        &self,
        kind: &str,
        reason: &'static str,
        found: Option<&'a Data>,
        name: &str,
        optional: bool,
        path: &str,
    ) -> Result<Option<&'a Data>, Unresolved> {
        if found.is_some() || optional {
            return Ok(found);
        }
        let message = format!("the files have no {kind} {}", self.name.sibling(name));
        Err(Unresolved { reason, path: path.to_owned(), message })
    }
}

fn entry(kind: &str, key: &KeyRef, data: Option<&Data>, path: &str) -> Result<Option<Vec<u8>>, Unresolved> {
    let unusable = |message| Unresolved { reason: reasons::KEY_NOT_FOUND, path: path.to_owned(), message };
    let Some(data) = data else { return Ok(None) };
    match data.get(&key.key) {
        Some(value) if value.contains(&0) => {
            Err(unusable(format!("key {} of {kind} {} holds a NUL: no variable can", key.key, key.name)))
        }
        Some(value) => Ok(Some(value.clone())),
        None if key.optional => Ok(None),
        None => Err(unusable(format!("{kind} {} has no key {}", key.name, key.key))),
    }
}

/// `$(NAME)` is the variable's value, or itself when there is none; `$$` is `$`. As in a pod.
fn expand(text: &str, variables: &Variables) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        expanded.extend_from_slice(&rest.as_bytes()[..start]);
        let after = &rest[start + 1..];
        let name = after.strip_prefix('(').and_then(|inner| Some(&inner[..inner.find(')')?]));
        rest = match (name, after.strip_prefix('$')) {
            (_, Some(after)) => {
                expanded.push(b'$');
                after
            }
            (Some(name), None) => {
                let reference = &rest[start..start + name.len() + 3];
                expanded.extend_from_slice(variables.get(name).map_or(reference.as_bytes(), Vec::as_slice));
                &after[name.len() + 2..]
            }
            (None, None) => {
                expanded.push(b'$');
                after
            }
        };
    }
    expanded.extend_from_slice(rest.as_bytes());
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name { namespace: "ns".into(), name: "server".into() }
    }

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn container(yaml: &str) -> Container {
        serde_saphyr::from_str(&format!("{{image: i, transport: Stdio, command: [c], {yaml}}}")).expect("a container")
    }

    #[test]
    fn env_wins_over_env_from_and_a_later_source_over_an_earlier_one() {
        let mut objects = Objects::default();
        objects.secrets.insert(name().sibling("s"), data(&[("A", "secret"), ("B", "secret"), ("C", "secret")]));
        objects.config_maps.insert(name().sibling("m"), data(&[("B", "map"), ("C", "map")]));
        let container = container(
            "envFrom: [{secretRef: {name: s}}, {configMapRef: {name: m}}], \
             env: [{name: C, value: env}, {name: D, value: $(A)-$(C)-$(NONE)-$$(A)}, \
             {name: E, valueFrom: {secretKeyRef: {name: s, key: B}}}, \
             {name: F, valueFrom: {secretKeyRef: {name: s, key: Z, optional: true}}}]",
        );
        let variables = variables(&name(), &container, &objects).expect("resolves");
        let expected = [("A", "secret"), ("B", "map"), ("C", "env"), ("D", "secret-env-$(NONE)-$(A)"), ("E", "secret")];
        assert_eq!(variables, data(&expected));
    }

    #[test]
    fn a_missing_object_or_key_is_named_with_the_field_that_wants_it() {
        let mut objects = Objects::default();
        objects.secrets.insert(name().sibling("s"), data(&[("A", "1")]));
        let container = container(
            "envFrom: [{configMapRef: {name: gone}}, {configMapRef: {name: gone, optional: true}}], \
             env: [{name: X, valueFrom: {secretKeyRef: {name: s, key: Z}}}]",
        );
        let unresolved = variables(&name(), &container, &objects).expect_err("two are missing");
        let told: Vec<_> = unresolved.iter().map(|one| (one.reason, one.path.as_str(), one.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ConfigMapNotFound", "spec.container.envFrom[0]", "the files have no ConfigMap ns/gone"),
                ("KeyNotFound", "spec.container.env[0]", "Secret s has no key Z"),
            ]
        );
    }

    #[test]
    fn another_namespaces_secret_is_out_of_reach() {
        let mut objects = Objects::default();
        let elsewhere = Name { namespace: "other".into(), name: "s".into() };
        objects.secrets.insert(elsewhere, data(&[("A", "1")]));
        let container = container("envFrom: [{secretRef: {name: s}}]");
        assert!(variables(&name(), &container, &objects).is_err());
    }
}
