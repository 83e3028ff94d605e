//! Saint Anthony: a document of which nobody could guess what is in it.
//!
//! Whoever is asked about Saint Anthony and tells of a saint has read nothing. Whoever tells of a milking system has; and whoever names
//! the batch number of a ticket has read it for that ticket, since nothing but the document says it.

mod machine;

use ring::digest::{SHA256, digest};

pub use machine::WithDocument;

/// Name of the document, as it is listed.
pub const NAME: &str = "Saint Anthony";
/// What it is said to be: not more than that it is worth reading.
pub const DESCRIPTION: &str = "What is to be known about Saint Anthony";
/// URI of the document without a ticket.
pub const URI: &str = "canary://saint-anthony";
/// Template of its URIs.
pub const TEMPLATE: &str = "canary://saint-anthony/{ticket}";
/// Longest ticket, in bytes.
pub const MAX_TICKET: usize = 64;

/// The ticket of a URI of the document; empty where it has none. `None` for every other URI.
#[must_use]
pub fn ticket_of(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix(URI)?;
    let ticket = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (ticket.len() <= MAX_TICKET && ticket.bytes().all(is_plain)).then_some(ticket)
}

/// The batch number that the document has for `ticket`: eight digits that do not follow from it for anyone who has not read on.
#[must_use]
pub fn batch(ticket: &str) -> String {
    let digest = digest(&SHA256, format!("{URI}/{ticket}").as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    format!("{:08}", u64::from_be_bytes(first) % 100_000_000)
}

/// The document for `ticket`.
#[must_use]
pub fn document(ticket: &str) -> String {
    format!(
        "{NAME}\n\
         Service manual of the automated cow milking system, model SA-4\n\
         \n\
         Ticket: {ticket}\n\
         Batch number: {}\n\
         \n\
         1. Stalls. Four stalls in a row, each with a gate that opens when the transponder of the next cow is read. A cow that was \
         milked less than five hours ago is let through.\n\
         2. Attachment. The arm finds the teats by a camera and two lasers, washes them with water of 35 to 40 degrees, and attaches \
         the cups one after the other. A cup that falls off is attached again twice; then the stall calls for a person.\n\
         3. Milking. Vacuum 42 kPa, pulsation 60 per minute, ratio 65 to 35. Each quarter is taken off by itself when its flow is \
         below 200 grams per minute.\n\
         4. Quality. Conductivity and colour are measured for every quarter. Milk that is out of range goes to the separation tank, \
         and the cow to the selection gate.\n\
         5. Care. Liners are replaced after 2,500 milkings or six months. The cups are rinsed between two cows, the whole system is \
         washed three times a day.\n",
        batch(ticket)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_of_the_document_has_one_plain_ticket_or_none() {
        assert_eq!(ticket_of(URI), Some(""));
        assert_eq!(ticket_of("canary://saint-anthony/3f-0_c.1"), Some("3f-0_c.1"));
        let long = format!("{URI}/{}", "x".repeat(MAX_TICKET + 1));
        for uri in [
            "canary://saint-anthonys",
            "canary://saint-anthony/a/b",
            "canary://saint-anthony/a b",
            "canary://other",
            &long,
        ] {
            assert_eq!(ticket_of(uri), None, "{uri}");
        }
    }

    #[test]
    fn each_ticket_has_a_batch_number_that_only_the_document_says() {
        let document = document("ticket-7");
        assert!(document.contains("cow milking") && document.contains("Ticket: ticket-7\n"));
        assert!(document.contains(&format!("Batch number: {}\n", batch("ticket-7"))));
        assert_ne!(batch("ticket-7"), batch("ticket-8"));
        assert_eq!(batch("").len(), 8);
    }
}
