//! The bus protocol as text: JSON-RPC 2.0, one object a line, UTF-8.
//!
//! Pure: a line of bytes becomes a [`Frame`] with a typed [`Call`], a typed reply becomes a line. The
//! parameters of most methods *are* the request types of the core; only what the bus itself deals with
//! (`hello`, `subscribe`, `fetch`, ...) has its shape here. [`Method`] is the one table of methods.
//!
//! What it deliberately does not do: no sockets, no clock, no permission (the core decides), no
//! batches, no requests without an id. Content stays raw JSON; it is checked once, here at the edge
//! ([`content`]), so that nothing leaves the daemon that another JSON reader would choke on.
//!
//! ```text
//! line --content::scan--> text --envelope--> {id, key, method, raw params} --table--> Frame{call}
//!                                                  any step: Rejected{id?, FrameError} -> error reply
//! ```

pub mod content;
pub mod encode;
pub mod fault;
pub mod frame;
pub mod method;
pub mod wire;

pub use encode::{Incoming, Notification};
pub use frame::{Frame, FrameError, Id, Rejected, parse};
pub use method::{Call, Method};

/// The types that requests and replies are made of, for those who see only the protocol.
pub use crate::core::{denied, json, request, spec, view};

/// The version of the protocol that `hello` agrees on.
pub const VERSION: u32 = 1;

/// What this side understands beyond the version; `hello` answers with the common subset.
pub const FEATURES: &[&str] = &["ephemeral", "follow", "keys", "peek", "takeover"];

/// The longest line of a request, in bytes, its newline not counted.
pub const MAX_LINE: usize = 1 << 20;

/// The longest line that a client reads, in bytes: a reply may hold a whole list.
pub const MAX_REPLY_LINE: usize = 64 << 20;

/// Requests of one connection that may be unanswered; then the server stops reading.
pub const MAX_OUTSTANDING: usize = 256;
