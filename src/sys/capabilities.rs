//! Dropping capabilities (capabilities(7)).
#![expect(unsafe_code, reason = "capget and capset have no wrapper in libc or nix")]

use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits, in two halves.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding, ambient, permitted, effective and inheritable sets of this thread, for good
/// and for all it runs. Nothing to do for an ordinary user, who has none.
///
/// Together with `no_new_privs` this holds for root as well: an exec then gives nothing back.
///
/// # Errors
/// `EPERM` if the bounding set can't be emptied although there are capabilities.
pub fn drop_all() -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 takes a header and two halves, both valid for reading and writing.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    if halves.iter().all(|half| half.permitted == 0 && half.inheritable == 0) {
        return Ok(());
    }
    for capability in 0..64 {
        // SAFETY: this prctl takes integers.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if done == -1 {
            let error = io::Error::last_os_error();
            // Past the last one that this kernel has.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    let mut header = Header { version: VERSION_3, pid: 0 };
    let none = [Half::default(); 2];
    // SAFETY: as above. An ambient capability goes with its permitted one.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
