//! Several servers as one: names that say whose a thing is, lists put together, pages across them.
//!
//! What a list holds keeps its bytes but for the name or the address under which it is asked for.

mod cursor;
mod list;
mod names;
mod origin;
mod result;
mod seek;
mod selection;

pub use cursor::Cursor;
pub use list::{Item, Kind, Page, PageSize, items, page};
pub use names::{Member, Owned};
pub use origin::Origin;
pub use result::{capabilities, names_resources, of_member, with_origin};
pub use seek::{Seek, Step};
pub use selection::Selection;
