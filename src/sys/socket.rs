//! A connected socket in the runtime's poller, registered for reading alone: were it for writing as
//! well, each read of the peer would wake this process, in the middle of that read, to say that there
//! is room again. Only a writer that found it full registers for that, and only until there is room.
#![expect(unsafe_code, reason = "tokio's registration of a descriptor is an unsafe function")]

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{MsgFlags, recvmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// See the module.
#[derive(Debug)]
pub struct Socket(AsyncFd<UnixStream>);

impl Socket {
    /// Takes over a stream of the runtime's.
    ///
    /// # Errors
    /// The runtime's registration.
    pub fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        // SAFETY: the stream owns its descriptor, moves into the AsyncFd and is only ever lent out by
        // shared reference: the descriptor stays open, and the same one, until both are dropped.
        let registered = unsafe { AsyncFd::register_with_interest(stream, Interest::READABLE) };
        Ok(Socket(registered?))
    }

    /// Waits for something to read, or the end. Cancel-safe.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Reads what is there. Descriptors that were sent along are dropped by the kernel.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing; recvmsg(2).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len();
        let (read, is_cut) = self.0.try_io(Interest::READABLE, |stream| {
            let mut slices = [IoSliceMut::new(buffer)];
            let got = recvmsg::<()>(stream.as_raw_fd(), &mut slices, None, MsgFlags::empty())?;
            Ok((got.bytes, got.flags.contains(MsgFlags::MSG_CTRUNC)))
        })?;
        // That was all: no need to ask again. But not where descriptors came along: a read ends
        // after those, whatever follows (unix(7)).
        if read > 0 && read < room && !is_cut {
            let nothing = |_: &UnixStream| Err::<(), _>(io::ErrorKind::WouldBlock.into());
            // It answers with that very error.
            let _ = self.0.try_io(Interest::READABLE, nothing);
        }
        Ok(read)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; writev(2).
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_ref().write_vectored(slices)
    }

    /// Waits until there is room, or the connection is over. Cancel-safe.
    ///
    /// # Errors
    /// There is no descriptor left to wait with.
    pub async fn writable(&self) -> io::Result<()> {
        let again = OwnedFd::from(self.0.get_ref().try_clone()?);
        // SAFETY: as in `new`.
        let again = unsafe { AsyncFd::register_with_interest(again, Interest::WRITABLE) }?;
        again.writable().await.map(drop)
    }

    /// Whether the peer has closed both directions, once something is known of either.
    pub async fn is_hung_up(&self) -> bool {
        let ready = self.0.ready(Interest::READABLE | Interest::WRITABLE).await;
        ready.is_ok_and(|guard| guard.ready().is_write_closed())
    }

    /// Waits until the peer has closed both directions. Cancel-safe.
    pub async fn hung_up(&self) {
        // Not registered for writing, so this can only be the end of it.
        if self.0.ready(Interest::WRITABLE).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends a direction, or both.
    pub fn shut_down(&self, which: Shutdown) {
        // ENOTCONN: the peer was faster.
        let _ = self.0.get_ref().shutdown(which);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::io::{ErrorKind, Read};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use nix::sys::socket::{ControlMessage, sendmsg};
    use tokio::net::UnixStream as Stream;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = Stream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        (Socket::new(ours).unwrap(), theirs)
    }

    fn is_pending(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_read_that_took_all_is_not_followed_by_another() {
        let (socket, mut peer) = pair();
        let mut buffer = [0; 8];
        peer.write_all(b"abc").unwrap();
        socket.readable().await.unwrap();
        assert_eq!(socket.try_read(&mut buffer).unwrap(), 3);
        assert!(is_pending(async { socket.readable().await.is_ok() }));
        // A full buffer may not have been all.
        peer.write_all(b"0123456789").unwrap();
        socket.readable().await.unwrap();
        assert_eq!(socket.try_read(&mut buffer).unwrap(), 8);
        assert!(!is_pending(async { socket.readable().await.is_ok() }));
        assert_eq!(socket.try_read(&mut buffer).unwrap(), 2);
        drop(peer);
        socket.readable().await.unwrap();
        assert_eq!(socket.try_read(&mut buffer).unwrap(), 0);
    }

    #[tokio::test]
    async fn what_follows_a_sent_descriptor_is_not_forgotten() {
        let (socket, mut peer) = pair();
        let message = [IoSlice::new(b"first")];
        let descriptors = [peer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(peer.as_raw_fd(), &message, &rights, MsgFlags::empty(), None).unwrap();
        peer.write_all(b"second").unwrap();
        let (mut buffer, mut got) = ([0; 64], Vec::new());
        socket.readable().await.unwrap();
        while got.len() < 11 {
            assert!(!is_pending(async { socket.readable().await.is_ok() }));
            let read = socket.try_read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(got, b"firstsecond");
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for_until_the_peer_reads() {
        let (socket, mut peer) = pair();
        let slice = [0; 4096];
        let full = loop {
            match socket.try_write_vectored(&[IoSlice::new(&slice)]) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(is_pending(async { socket.writable().await.is_ok() }));
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).map(|_| all.len())
        });
        socket.writable().await.unwrap();
        assert!(socket.try_write_vectored(&[IoSlice::new(b"x")]).is_ok());
        drop(socket);
        assert!(reader.join().unwrap().unwrap() > 1);
    }

    #[tokio::test]
    async fn half_a_goodbye_is_none() {
        let (socket, peer) = pair();
        peer.shutdown(Shutdown::Write).unwrap();
        socket.readable().await.unwrap();
        assert_eq!(socket.try_read(&mut [0; 8]).unwrap(), 0);
        assert!(!socket.is_hung_up().await);
        assert!(is_pending(async { socket.hung_up().await }));
        drop(peer);
        socket.hung_up().await;
        assert!(socket.is_hung_up().await);
    }
}
