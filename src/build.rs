//! Tells the program the commit that it is built from: from git, or from `VALETKEY_COMMIT` where
//! there is no checkout (a source archive, a container).

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo:rerun-if-env-changed=VALETKEY_COMMIT");
    // Grows with each commit and each change of the branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    println!("cargo:rerun-if-changed=src/build.rs");
    let named = std::env::var("VALETKEY_COMMIT").ok();
    let commit = named.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!(
        "cargo:rustc-env=BUILT_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
}
