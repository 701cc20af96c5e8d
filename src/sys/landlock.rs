//! Landlock domains (landlock(7)), by raw bits.
//!
//! The `landlock` crate negotiates rights with the kernel at the time of the call; here a plan has
//! already fixed each bit for this kernel, so the crate is only used to demand them, all or nothing.
#![expect(unsafe_code, reason = "the ABI query, which the crate keeps to itself")]

use std::io;
use std::os::fd::BorrowedFd;

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};

/// The kernel's Landlock ABI, 0 if it has none or it is switched off at boot.
#[must_use]
pub fn abi() -> u32 {
    const CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the kernel takes a null pointer and size 0 and returns a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<()>(),
            0,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

/// A domain being built.
#[derive(Debug)]
pub struct Domain(RulesetCreated);

impl Domain {
    /// Starts a domain that handles these `LANDLOCK_ACCESS_FS_*` and `LANDLOCK_SCOPE_*` bits.
    ///
    /// # Errors
    /// `EINVAL` if the kernel doesn't know one of them.
    pub fn new(handled: u64, scoped: u64) -> io::Result<Self> {
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if handled != 0 {
            let bits = BitFlags::<AccessFs>::from_bits(handled).map_err(|_| invalid())?;
            ruleset = ruleset.handle_access(bits).map_err(errno)?;
        }
        if scoped != 0 {
            let bits = BitFlags::<Scope>::from_bits(scoped).map_err(|_| invalid())?;
            ruleset = ruleset.scope(bits).map_err(errno)?;
        }
        Ok(Self(ruleset.create().map_err(errno)?))
    }

    /// Grants handled rights on what lies beneath an open file.
    ///
    /// # Errors
    /// `EINVAL` for rights that the domain doesn't handle or the file can't have.
    pub fn allow(self, file: BorrowedFd<'_>, access: u64) -> io::Result<Self> {
        let bits = BitFlags::<AccessFs>::from_bits(access).map_err(|_| invalid())?;
        Ok(Self(self.0.add_rule(PathBeneath::new(file, bits)).map_err(errno)?))
    }

    /// Puts the calling thread into the domain, for good. Needs `no_new_privs`.
    ///
    /// # Errors
    /// `E2BIG` at 16 nested domains.
    pub fn enter(self) -> io::Result<()> {
        let status = self.0.restrict_self().map_err(errno)?;
        // Belt and braces: with a hard requirement anything less is an error already.
        if status.ruleset == landlock::RulesetStatus::FullyEnforced {
            Ok(())
        } else {
            Err(invalid())
        }
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// The system call's error at the bottom of the crate's, or `EINVAL` where the crate refused.
fn errno(error: landlock::RulesetError) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = inner.source();
    }
    invalid()
}
