//! Redis beside us: Debian's `redis-server` on a socket of its own, its files on the same disk.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::rig::{self, socket_is_up};
use super::wire::{Speaks, Target};

/// A running `redis-server`; ended when dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) target: Target,
}

impl Redis {
    /// Starts one; none where it isn't installed. `fsync` is `always`, `everysec` or `no`.
    pub(crate) fn start(root: &Path, fsync: &str) -> io::Result<Option<Redis>> {
        let dir = root.join(format!("redis-{fsync}"));
        std::fs::create_dir_all(&dir)?;
        let socket = dir.join("s");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", fsync])
            .args(["--auto-aof-rewrite-percentage", "0"])
            .args(["--client-output-buffer-limit", "pubsub", "0", "0", "0"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if let Err(error) = socket_is_up(&dir, &socket, &mut child) {
            rig::end(&mut child);
            return Err(error);
        }
        let name = format!("Redis, appendfsync {fsync}");
        let target = Target { name, speaks: Speaks::Redis, pid: child.id(), socket };
        Ok(Some(Redis { child, target }))
    }

    /// Removes the stream, so that a reader may begin at its beginning.
    pub(crate) fn empty(target: &Target) -> io::Result<()> {
        let mut stream = UnixStream::connect(&target.socket)?;
        stream.write_all(b"*2\r\n$3\r\nDEL\r\n$1\r\ns\r\n")?;
        stream.read_exact(&mut [0; 4])
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        rig::end(&mut self.child);
    }
}
