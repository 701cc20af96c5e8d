//! Loads seccomp filters (seccomp(2)).
#![expect(unsafe_code, reason = "seccomp(2) has no wrapper in libc or nix")]

use std::io;

/// Filters the system calls of this thread and what it forks or runs. Needs `no_new_privs`.
///
/// Each instruction is `(code, jt, jf, k)` of `struct sock_filter`.
///
/// # Errors
/// `EINVAL` for a program that the kernel doesn't accept, `EACCES` without `no_new_privs`.
pub fn load(program: impl IntoIterator<Item = (u16, u8, u8, u32)>) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .into_iter()
        .map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let len = libc::c_ushort::try_from(filter.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` names `len` initialised instructions in `filter`, which outlives the call;
    // the kernel copies them.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether this kernel loads filters: a null program is `EFAULT` where it does.
#[must_use]
pub fn available() -> bool {
    // SAFETY: the kernel checks the pointer and never gets to install anything.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    done == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
