//! System calls as numbers and words, also those that no library makes.
#![expect(unsafe_code, reason = "attackers make calls that nothing wraps")]
#![expect(clippy::unwrap_used, reason = "test code outside of a test function")]

use std::io;

use serde::{Deserialize, Serialize};

/// An argument of a system call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Arg {
    Int(u64),
    /// The address of this text and a NUL.
    Text(String),
    /// The address of these bytes, writable.
    Bytes(Vec<u8>),
}

/// Makes a call with up to six arguments.
pub(crate) fn call(number: i64, args: &[Arg]) -> io::Result<i64> {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut words = [0_u64; 6];
    for (word, arg) in words.iter_mut().zip(args) {
        let bytes = match arg {
            Arg::Int(value) => {
                *word = *value;
                continue;
            }
            Arg::Text(text) => [text.as_bytes(), b"\0"].concat(),
            Arg::Bytes(bytes) => bytes.clone(),
        };
        held.push(bytes);
        *word = held.last_mut().unwrap().as_mut_ptr() as u64;
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: the tests pass addresses only of memory that is held above for the length of the call, in
    // the sizes that the calls document; calls that map or unmap memory are not among theirs.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// `getpid` by the gate of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(crate) fn int_80() -> io::Result<i64> {
    let value: i32;
    // SAFETY: number 20 of the 32-bit table is getpid, which takes nothing and touches no memory. The
    // gate may change r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") 20_i32 => value,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if value < 0 { Err(io::Error::from_raw_os_error(-value)) } else { Ok(value.into()) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn int_80() -> io::Result<i64> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
