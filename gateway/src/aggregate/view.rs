//! What an endpoint of several servers shows: lists that are put together once, and page by page. Where a server's list
//! becomes another, the pages on which it is none of are kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use portolan_mcp::aggregate::{Cursor, Item, Kind as ListKind, PageSize, Selection, capabilities, page};
use portolan_snapshot::{RouteName, Toolset};

use super::catalog::Part;
use super::fetch::Lists;

/// Every capability that is told of.
const ALL: &str = r#"{"tools":{},"prompts":{},"resources":{},"completions":{}}"#;

/// What all views have in common.
pub(super) struct Bounds {
    /// How much is on a page.
    page: PageSize,
    /// Bytes of pages that may be kept.
    max_kept: usize,
    /// Bytes of pages that are kept.
    kept: AtomicUsize,
}

impl Default for Bounds {
    fn default() -> Self {
        let page = PageSize { items: 1000, bytes: 4 * 1024 * 1024 };
        Self { page, max_kept: 64 * 1024 * 1024, kept: AtomicUsize::new(0) }
    }
}

/// What is shown to everyone who may use the same servers.
pub(super) struct View {
    toolset: Option<Arc<Toolset>>,
    parts: Vec<Part>,
    /// What they have together, JSON.
    pub(super) capabilities: String,
    /// In the order of [`ListKind::ALL`].
    lists: [List; 4],
    bounds: Arc<Bounds>,
}

/// Everything of one kind.
struct List {
    shown: Vec<Shown>,
    /// Those that were made, by the cursors behind which they are.
    pages: Mutex<HashMap<Option<Cursor>, Arc<Page>>>,
}

/// What is shown of one server.
#[derive(Clone)]
struct Shown {
    route: RouteName,
    items: Arc<[Item]>,
}

impl Shown {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.items, &other.items) && self.route == other.route
    }
}

/// One page of a list.
pub(super) struct Page {
    /// The items, a JSON array.
    pub(super) items: Bytes,
    /// Where the next page begins.
    pub(super) next: Option<Cursor>,
    /// Where what is on it comes from.
    of: Box<[Shown]>,
    /// That it counts among those that are kept.
    kept: Option<Kept>,
}

impl View {
    /// What `parts` are together, as `toolset` shows them. What is still as it was `before` is taken over.
    pub(super) fn new(
        parts: Vec<Part>,
        toolset: Option<Arc<Toolset>>,
        before: Option<&Self>,
        bounds: Arc<Bounds>,
    ) -> Self {
        let before = before.filter(|before| before.selects_like(toolset.as_deref()));
        // A client asks once what there is: a server that has not said yet may have everything.
        let told = parts.iter().map(|part| part.lists.as_ref().map_or(ALL, |lists| lists.intro.capabilities.as_str()));
        Self {
            capabilities: capabilities(told),
            lists: ListKind::ALL.map(|kind| List::new(kind, &parts, toolset.as_deref(), before)),
            toolset,
            parts,
            bounds,
        }
    }

    /// Whether these parts are shown.
    pub(super) fn is_of(&self, parts: &[Part], toolset: Option<&Toolset>) -> bool {
        let are_same =
            self.parts.len() == parts.len() && self.parts.iter().zip(parts).all(|(one, other)| one.is(other));
        are_same && self.selects_like(toolset)
    }

    fn selects_like(&self, toolset: Option<&Toolset>) -> bool {
        self.toolset.as_deref().map(|own| &own.selection) == toolset.map(|toolset| &toolset.selection)
    }

    /// What the first of them has.
    pub(super) fn first(&self) -> Option<&Lists> {
        self.parts.first()?.lists.as_deref()
    }

    /// Servers of which not all is here that they have now.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.failure.is_some())
    }

    /// The page of `kind` behind `cursor`.
    pub(super) fn page(&self, kind: ListKind, cursor: Option<Cursor>) -> Arc<Page> {
        self.lists[kind.place()].page(cursor, &self.bounds)
    }
}

impl List {
    fn new(kind: ListKind, parts: &[Part], toolset: Option<&Toolset>, before: Option<&View>) -> Self {
        let before = before.map(|before| (before, &before.lists[kind.place()]));
        let known: HashMap<&str, (&Part, &Shown)> = before.map_or_else(HashMap::new, |(view, list)| {
            let shown = view.parts.iter().filter(|part| part.lists.is_some()).zip(&list.shown);
            shown.map(|(part, shown)| (part.route.as_str(), (part, shown))).collect()
        });
        let shown = parts.iter().filter_map(|part| {
            let list = part.lists.as_ref()?.of(kind);
            let renames = |selection: &&Selection| kind == ListKind::Tools || selection.is_alone();
            let selection = toolset.map(|toolset| &toolset.selection).filter(renames);
            let items = match (selection, known.get(part.route.as_str())) {
                (None, _) => list.clone(),
                (Some(_), Some((before, shown))) if before.has_lists_of(part) => shown.items.clone(),
                (Some(selection), _) => selection.items(kind, part.route.as_str(), list),
            };
            Some(Shown { route: part.route.clone(), items })
        });
        let new = Self { shown: shown.collect(), pages: Mutex::default() };
        if let Some((_, before)) = before {
            new.take_over(&before.pages());
        }
        new
    }

    /// Keeps those pages that are the same here, one behind the other.
    fn take_over(&self, before: &HashMap<Option<Cursor>, Arc<Page>>) {
        let mut pages = self.pages();
        let mut cursor = None;
        while let Some(page) = before.get(&cursor) {
            if page.is_of(self.behind(cursor.as_ref())) {
                pages.insert(cursor, page.clone());
            }
            if page.next.is_none() {
                break;
            }
            cursor = page.next.clone();
        }
    }

    fn page(&self, cursor: Option<Cursor>, bounds: &Arc<Bounds>) -> Arc<Page> {
        if let Some(page) = self.pages().get(&cursor) {
            return page.clone();
        }
        let page = Arc::new(Page::new(self.behind(cursor.as_ref()), cursor.as_ref(), bounds));
        let mut pages = self.pages();
        // Cursors may be anything: only where a page begins is there one to keep.
        let begins = cursor.is_none() || pages.values().any(|page| page.next == cursor);
        if begins && page.kept.is_some() {
            pages.insert(cursor, page.clone());
        }
        page
    }

    fn behind(&self, cursor: Option<&Cursor>) -> &[Shown] {
        let first =
            cursor.map_or(0, |cursor| self.shown.partition_point(|shown| cursor.is_behind(shown.route.as_str())));
        &self.shown[first..]
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<Option<Cursor>, Arc<Page>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn new(shown: &[Shown], cursor: Option<&Cursor>, bounds: &Arc<Bounds>) -> Self {
        let made = page(shown.iter().map(|shown| (shown.route.as_str(), &shown.items)), cursor, bounds.page);
        let kept = Kept::take(bounds, made.items.len());
        Self { items: made.items.into(), next: made.next, of: shown[..made.lists].into(), kept }
    }

    /// Whether it is the page of what is `shown` from where it begins.
    fn is_of(&self, shown: &[Shown]) -> bool {
        let is_long_enough =
            if self.next.is_some() { shown.len() >= self.of.len() } else { shown.len() == self.of.len() };
        is_long_enough && self.of.iter().zip(shown).all(|(one, other)| one.is(other))
    }
}

/// Bytes of a page that is kept.
struct Kept {
    bytes: usize,
    of: Arc<Bounds>,
}

impl Kept {
    /// `None` where there is no more room.
    fn take(of: &Arc<Bounds>, bytes: usize) -> Option<Self> {
        let fits = |kept: usize| kept.checked_add(bytes).filter(|kept| *kept <= of.max_kept);
        of.kept.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok().map(|_| Self { bytes, of: of.clone() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.of.kept.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use portolan_mcp::translate::ServerIntro;

    /// A server's tools, by what it is called.
    type Tools = BTreeMap<u8, Arc<Lists>>;

    fn lists(tools: &[u8]) -> Arc<Lists> {
        let item = |tool: &u8| Item { own: tool.to_string().into(), json: format!(r#"{{"name":"{tool}"}}"#).into() };
        let tools: Arc<[Item]> = tools.iter().map(item).collect();
        let intro = ServerIntro { capabilities: "{}".into(), info: None, instructions: None };
        Arc::new(Lists { intro, items: [tools, Arc::from([]), Arc::from([]), Arc::from([])] })
    }

    fn bounds(items: usize, max_kept: usize) -> Arc<Bounds> {
        Arc::new(Bounds { page: PageSize { items, bytes: usize::MAX }, max_kept, kept: AtomicUsize::new(0) })
    }

    fn view(tools: &Tools, before: Option<&View>, bounds: &Arc<Bounds>) -> View {
        let part =
            |(server, lists): (&u8, &Arc<Lists>)| Part::new(RouteName::new("n", &format!("s{server}")), lists.clone());
        View::new(tools.iter().map(part).collect(), None, before, bounds.clone())
    }

    /// Every page, one behind the other.
    fn pages(view: &View) -> Vec<Arc<Page>> {
        let mut pages = vec![view.page(ListKind::Tools, None)];
        while let Some(next) = pages.last().and_then(|page| page.next.clone()) {
            pages.push(view.page(ListKind::Tools, Some(next)));
        }
        pages
    }

    fn texts(pages: &[Arc<Page>]) -> Vec<(&[u8], Option<&Cursor>)> {
        pages.iter().map(|page| (&page.items[..], page.next.as_ref())).collect()
    }

    proptest! {
        #[test]
        fn whatever_changes_a_view_that_was_taken_over_shows_what_a_new_one_shows(
            changes in prop::collection::vec((0u8..5, prop::option::of(prop::collection::vec(0u8..9, 0..5)), any::<bool>()), 1..12),
            items in 1usize..6,
        ) {
            let (kept, fresh) = (bounds(items, usize::MAX), bounds(items, 0));
            let mut tools = Tools::new();
            let mut last = view(&tools, None, &kept);
            for (server, has, is_read) in changes {
                match has {
                    Some(has) => drop(tools.insert(server, lists(&has))),
                    None => drop(tools.remove(&server)),
                }
                last = view(&tools, Some(&last), &kept);
                if is_read {
                    let anew = view(&tools, None, &fresh);
                    let (kept, anew) = (pages(&last), pages(&anew));
                    prop_assert_eq!(texts(&kept), texts(&anew));
                }
            }
            prop_assert_eq!(fresh.kept.load(Ordering::Relaxed), 0);
            drop(last);
            prop_assert_eq!(kept.kept.load(Ordering::Relaxed), 0, "what is not kept does not count");
        }
    }

    #[test]
    fn a_page_is_made_once_and_only_those_on_which_something_changed_are_made_again() {
        let bounds = bounds(2, usize::MAX);
        let mut tools: Tools = (0..4).map(|server| (server, lists(&[1, 2]))).collect();
        let before = view(&tools, None, &bounds);
        let old = pages(&before);
        assert_eq!(old.len(), 4);
        let is_same = |old: &[Arc<Page>], new: &[Arc<Page>]| -> Vec<bool> {
            old.iter().zip(new).map(|(old, new)| Arc::ptr_eq(old, new)).collect()
        };
        assert_eq!(is_same(&old, &pages(&before)), [true; 4]);
        tools.insert(1, lists(&[3, 2]));
        let after = view(&tools, Some(&before), &bounds);
        // The page before says that there is more, and the one behind begins where it ends.
        assert_eq!(is_same(&old, &pages(&after)), [false, false, false, true]);
    }

    #[test]
    fn a_cursor_that_is_no_pages_end_is_answered_and_not_kept() {
        let bounds = bounds(2, usize::MAX);
        let view = view(&[(1, lists(&[1, 2, 3, 4, 5]))].into(), None, &bounds);
        let held = |view: &View| view.lists[0].pages().len();
        let anywhere = Cursor { route: "n/s1".into(), place: 2, own: "3".into() };
        assert_eq!(&view.page(ListKind::Tools, Some(anywhere)).items[..], br#"[{"name":"4"},{"name":"5"}]"#);
        assert_eq!((held(&view), bounds.kept.load(Ordering::Relaxed)), (0, 0));
        pages(&view);
        assert_eq!(held(&view), 3);
    }
}
