//! Some of the servers behind an endpoint, with some of their tools, and names that tools have there only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Item, Kind, Member, Owned};
use crate::members::Members;

/// What is shown of which server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// By route: the tools that are shown, or `None` for all of them.
    servers: BTreeMap<String, Option<Tools>>,
    /// Whose tool a name is, as (route, the server's own name).
    named: HashMap<String, (String, String)>,
    /// The one server, where things have the names that it has for them.
    alone: Option<String>,
}

/// Tools by the server's own names, with the names that they have here.
type Tools = BTreeMap<String, Option<String>>;

impl Selection {
    /// Adds the server `route` (`namespace/server`) with `tools`: by the server's own names those that are shown, and the name
    /// that each has here in the place of its usual one; `None` for all of them. Such a name holds no `__`, or it might be
    /// another tool's; the first of two that are the same counts.
    pub fn add(&mut self, route: &str, tools: Option<Tools>) {
        for (own, shown) in tools.iter().flatten() {
            if let Some(shown) = shown {
                self.named.entry(shown.clone()).or_insert_with(|| (route.to_owned(), own.clone()));
            }
        }
        self.servers.insert(route.to_owned(), tools);
    }

    /// All that the server `route` has, under its own names.
    #[must_use]
    pub fn alone(route: &str) -> Self {
        let servers = BTreeMap::from([(route.to_owned(), None)]);
        Self { servers, named: HashMap::new(), alone: Some(route.to_owned()) }
    }

    /// The one server whose names are those that are shown.
    #[must_use]
    pub fn only(&self) -> Option<Member<'_>> {
        Member::of_route(self.alone.as_deref()?)
    }

    /// Whether there is such a one.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// The routes of its servers, in order.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.servers.keys().map(String::as_str)
    }

    /// Whether the server `route` is one of them.
    #[must_use]
    pub fn has(&self, route: &str) -> bool {
        self.servers.contains_key(route)
    }

    /// Whose tool `name` is; `None` where it is none that is shown.
    #[must_use]
    pub fn tool<'a>(&'a self, name: &'a str) -> Option<Owned<'a>> {
        if let Some((route, own)) = self.named.get(name) {
            return Some(Owned { member: Member::of_route(route)?, own });
        }
        let owned = Owned::of_name(name)?;
        let is_shown = match self.servers.get(&owned.member.route())? {
            None => true,
            // One that has another name here has only that.
            Some(tools) => tools.get(owned.own).is_some_and(Option::is_none),
        };
        is_shown.then_some(owned)
    }

    /// `items` of the server `route` as they are listed here.
    #[must_use]
    pub fn items(&self, kind: Kind, route: &str, items: &Arc<[Item]>) -> Arc<[Item]> {
        match self.servers.get(route) {
            None => Arc::from([]),
            Some(_) if self.is_alone() => items.iter().filter_map(|item| named(kind, item, &item.own)).collect(),
            Some(Some(shown)) if kind == Kind::Tools => {
                let shown = |item: &Item| match shown.get(&*item.own)? {
                    Some(shown) => named(kind, item, shown),
                    None => Some(item.clone()),
                };
                items.iter().filter_map(shown).collect()
            }
            Some(_) => items.clone(),
        }
    }
}

/// `item` under the name `shown`.
fn named(kind: Kind, item: &Item, shown: &str) -> Option<Item> {
    let mut members = Members::of(&item.json)?;
    members.set(kind.key(), serde_json::Value::from(shown).to_string());
    let json = members.to_string().into();
    Some(Item { own: item.own.clone(), json })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection() -> Selection {
        let mut selection = Selection::default();
        let tools = [("a", Some("one")), ("b", None)];
        let tools = tools.into_iter().map(|(own, shown)| (own.to_owned(), shown.map(str::to_owned))).collect();
        selection.add("n/s", Some(tools));
        selection.add("n/t", None);
        selection
    }

    #[test]
    fn a_name_is_the_tool_that_is_shown_under_it_and_no_other_name_is_one() {
        let selection = selection();
        let owner = |name: &str| selection.tool(name).map(|owned| (owned.member.route(), owned.own.to_owned()));
        for (name, route, own) in
            [("one", "n/s", "a"), ("n__s__b", "n/s", "b"), ("n__t__x", "n/t", "x"), ("n__t__one", "n/t", "one")]
        {
            assert_eq!(owner(name), Some((route.to_owned(), own.to_owned())), "{name}");
        }
        for name in ["n__s__a", "n__s__c", "n__u__x", "a", "b", "", "n__s__one"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn a_list_has_what_is_shown_in_the_servers_order_and_every_name_of_it_is_found_again() {
        let selection = selection();
        let item = |route: &str, own: &str| {
            let name = Member::of_route(route).expect("a route").name(own);
            Item { own: own.into(), json: format!(r#"{{"x":1.50,"name":"{name}"}}"#).into() }
        };
        let list = |route: &str| -> Vec<String> {
            let own: Arc<[Item]> = ["c", "b", "a"].map(|own| item(route, own)).into();
            selection.items(Kind::Tools, route, &own).iter().map(|item| item.json.to_string()).collect()
        };
        assert_eq!(list("n/s"), [r#"{"x":1.50,"name":"n__s__b"}"#, r#"{"x":1.50,"name":"one"}"#]);
        assert_eq!(list("n/t").len(), 3);
        assert_eq!(list("n/u").len(), 0);
        for json in list("n/s").into_iter().chain(list("n/t")) {
            let name = Members::of(&json).and_then(|item| item.string("name")).expect("a name");
            assert!(selection.tool(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_a_server_has_alone_is_listed_as_it_was_written_under_its_own_names() {
        let alone = Selection::alone("n/s");
        let member = Member { namespace: "n", server: "s" };
        assert_eq!((alone.only(), selection().only()), (Some(member), None));
        for (kind, list) in [
            (Kind::Tools, r#"{"tools":[{"x":1.50,"name":"a","y":{"name":"n__s__a"}}]}"#),
            (Kind::Resources, r#"{"resources":[{"uri":"a:b","name":"c"}]}"#),
            (Kind::Templates, r#"{"resourceTemplates":[{"uriTemplate":"a:{b}"}]}"#),
        ] {
            let (items, _) = crate::aggregate::items(kind, member, list).expect("a list");
            let shown = alone.items(kind, "n/s", &items.into());
            assert!(list.contains(&*shown[0].json), "{}", shown[0].json);
        }
    }
}
