//! Which build this is.

/// The commit, as `build.rs` found it or `VALETKEY_COMMIT` named it at build time; `unknown` for a
/// build without either.
pub const COMMIT: &str = env!("BUILT_COMMIT");
/// Version and commit, as `valetkey --version` prints them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_COMMIT"), ")");
