//! The binary: hands control to `valetkey::cli`, which parses the command line.
//!
//! jemalloc is a cargo feature and not the default, because building it needs `make`.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    valetkey::cli::main()
}
