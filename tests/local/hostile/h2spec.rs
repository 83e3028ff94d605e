//! What HTTP/2 demands of servers: `h2spec`, on the port of HTTP/1.1.
use crate::stand::Stand;
