//! Lists of several servers as one.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Cursor, Member};
use crate::members::Members;

/// What a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn place(self) -> usize {
        self as usize
    }

    /// The kind that `method` lists.
    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    /// The method that lists it.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The capability without which a server has none.
    #[must_use]
    pub fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// The notification that says that the list is another.
    #[must_use]
    pub fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources | Self::Templates => "notifications/resources/list_changed",
        }
    }

    /// The member of a result that holds the list.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an item by which it is asked for.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }
}

/// One item of a server's list, as it is shown among those of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// As its server calls it.
    pub own: Box<str>,
    /// The whole item, JSON.
    pub json: Box<str>,
}

/// Reads a page of a server's list; `None` where that is none. An item without the member that names it is left out.
/// Gives the server's own cursor of the next page besides.
#[must_use]
pub fn items(kind: Kind, member: Member<'_>, result: &str) -> Option<(Vec<Item>, Option<String>)> {
    let result = Members::of(result)?;
    let raw: Vec<&RawValue> = serde_json::from_str(result.get(kind.member())?).ok()?;
    let next = result.string("nextCursor").filter(|cursor| !cursor.is_empty());
    Some((raw.into_iter().filter_map(|raw| item(kind, member, raw.get())).collect(), next))
}

fn item(kind: Kind, member: Member<'_>, json: &str) -> Option<Item> {
    let mut members = Members::of(json)?;
    let own = members.string(kind.key())?;
    let shown = match kind {
        Kind::Tools | Kind::Prompts => member.name(&own),
        Kind::Resources | Kind::Templates => member.uri(&own),
    };
    members.set(kind.key(), serde_json::Value::from(shown).to_string());
    Some(Item { own: own.into(), json: members.to_string().into() })
}

/// One page of a list over several servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The items, a JSON array.
    pub items: String,
    /// Where the next page begins.
    pub next: Option<Cursor>,
    /// How many of the lists say what the page holds, from the first one that is not wholly before it.
    pub lists: usize,
}

/// How much one page holds; one item is always in it.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    /// Items.
    pub items: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

/// The page behind `cursor`, no larger than `max`, of `lists` in the order of their routes, from the first one on that
/// [is not before it](Cursor::is_behind).
#[must_use]
pub fn page<'a>(
    lists: impl IntoIterator<Item = (&'a str, &'a Arc<[Item]>)>,
    cursor: Option<&Cursor>,
    max: PageSize,
) -> Page {
    let mut page = Page { items: "[".to_owned(), next: None, lists: 0 };
    let (mut last, mut count, mut bytes) = (None, 0, 0);
    'lists: for (route, list) in lists {
        page.lists += 1;
        for (place, item) in list.iter().enumerate().skip(first(route, list, cursor)) {
            bytes += item.json.len();
            if count >= max.items || (bytes > max.bytes && count > 0) {
                page.next = last.map(|(route, place, own): (&str, usize, &str)| Cursor {
                    route: route.to_owned(),
                    place,
                    own: own.to_owned(),
                });
                break 'lists;
            }
            if count > 0 {
                page.items.push(',');
            }
            page.items.push_str(&item.json);
            count += 1;
            last = Some((route, place, &item.own));
        }
    }
    page.items.push(']');
    page
}

/// The place of the first item of `route` behind `cursor`.
fn first(route: &str, list: &[Item], cursor: Option<&Cursor>) -> usize {
    let Some(cursor) = cursor.filter(|cursor| cursor.route == route) else { return 0 };
    let is_there = |place: &usize| list.get(*place).is_some_and(|item| *item.own == *cursor.own);
    // A list that changed meanwhile has the item elsewhere; one that lost it goes on where it was.
    let found = Some(cursor.place).filter(is_there).or_else(|| list.iter().position(|item| *item.own == *cursor.own));
    found.map_or(cursor.place, |place| place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MEMBER: Member<'static> = Member { namespace: "n", server: "s" };

    #[test]
    fn an_item_keeps_its_bytes_but_for_the_name_by_which_it_is_asked_for() {
        let result =
            r#"{"tools":[{"x": 1.50, "name":"a\u0062", "inputSchema":{ }},{"title":"nameless"}],"nextCursor":"c"}"#;
        let (items, next) = items(Kind::Tools, MEMBER, result).expect("a list");
        assert_eq!(next.as_deref(), Some("c"));
        assert_eq!(items.len(), 1);
        assert_eq!((&*items[0].own, &*items[0].json), ("ab", r#"{"x":1.50,"name":"n__s__ab","inputSchema":{ }}"#));
        let result = r#"{"resourceTemplates":[{"uriTemplate":"x://{id}"}]}"#;
        let (items, next) = super::items(Kind::Templates, MEMBER, result).expect("a list");
        assert_eq!((&*items[0].json, next), (r#"{"uriTemplate":"s.n+x://{id}"}"#, None));
        assert_eq!(super::items(Kind::Tools, MEMBER, "{}"), None);
    }

    proptest! {
        #[test]
        fn pages_of_any_size_hold_everything_once_and_in_order(sizes in prop::collection::vec(0usize..7, 0..5), items in 1usize..9, bytes in 0usize..30) {
            let lists: Vec<(String, Arc<[Item]>)> = sizes.iter().enumerate().map(|(server, size)| {
                let item = |n: usize| Item { own: format!("{n}").into(), json: format!("{server}.{n}").into() };
                (format!("n/s{server}"), (0..*size).map(item).collect::<Vec<_>>().into())
            }).collect();
            let whole: Vec<String> = lists.iter().flat_map(|(_, list)| list.iter().map(|item| item.json.to_string())).collect();
            let (mut read, mut cursor) = (Vec::new(), None::<Cursor>);
            let max = PageSize { items, bytes };
            loop {
                let behind: Vec<_> = lists.iter().filter(|(route, _)| !cursor.as_ref().is_some_and(|cursor| cursor.is_behind(route))).collect();
                let page = page(behind.iter().map(|(route, list)| (route.as_str(), list)), cursor.as_ref(), max);
                let held = texts(&page);
                let long: usize = held.iter().map(String::len).sum();
                prop_assert!(held.len() <= items && (long <= bytes || held.len() == 1), "{page:?}");
                prop_assert!(page.next.is_some() || page.lists == behind.len(), "{page:?}");
                let same = behind.iter().take(page.lists).map(|(route, list)| (route.as_str(), list));
                prop_assert_eq!(super::page(same, cursor.as_ref(), max).items, page.items, "they say what it holds");
                read.extend(held);
                match page.next {
                    Some(next) => cursor = Cursor::parse(&next.to_string()),
                    None => break,
                }
                prop_assert!(cursor.is_some());
            }
            prop_assert_eq!(read, whole);
        }
    }

    fn texts(page: &Page) -> Vec<String> {
        let items: Vec<&RawValue> = serde_json::from_str(&page.items).expect("an array");
        items.into_iter().map(|item| item.get().to_owned()).collect()
    }

    #[test]
    fn a_list_that_changes_between_two_pages_is_not_shown_twice() {
        let item = |own: &str| Item { own: own.into(), json: format!("{own:?}").into() };
        let list = |owns: &[&str]| -> Arc<[Item]> { owns.iter().map(|own| item(own)).collect::<Vec<_>>().into() };
        let before = list(&["a", "b", "c"]);
        let max = PageSize { items: 2, bytes: usize::MAX };
        let first = page([("n/s", &before)], None, max);
        let cursor = first.next.expect("more");
        assert_eq!(page([("n/s", &list(&["x", "a", "b", "c"]))], Some(&cursor), max).items, r#"["c"]"#);
        assert_eq!(page([("n/s", &list(&["a", "c"]))], Some(&cursor), max).items, r#"["c"]"#);
        // The server is gone: the next one goes on.
        assert_eq!(page([("n/t", &list(&["z"]))], Some(&cursor), max).items, r#"["z"]"#);
    }
}
