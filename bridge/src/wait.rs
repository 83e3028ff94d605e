//! Waits for the bridge beside this container to drain.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use portolan_mcp::wire::DRAINED;

/// Returns once the bridge at `admin` has drained; a bridge that is gone has. At most `timeout`.
pub(crate) fn run(admin: SocketAddr, timeout: Duration) -> anyhow::Result<()> {
    if !admin.ip().is_loopback() {
        bail!("--admin must be a loopback address: only the pod itself may ask");
    }
    let Ok(mut socket) = TcpStream::connect_timeout(&admin, timeout) else { return Ok(()) };
    socket.set_read_timeout(Some(timeout)).context("cannot bound the wait")?;
    write!(socket, "GET {DRAINED} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").context("cannot ask")?;
    let mut status = String::new();
    match BufReader::new(socket).read_line(&mut status) {
        // A bridge that closes without an answer has ended.
        Ok(0) => Ok(()),
        Ok(_) if status.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(_) => bail!("the bridge answered {:?}", status.trim_end()),
        Err(_) => bail!("the bridge had not drained after {} s", timeout.as_secs()),
    }
}
