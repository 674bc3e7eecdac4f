//! Compiles `proto/` with protox: no protoc to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "gsdk/connect.proto",
        "gsdk/connect_master.proto",
        "gsdk/device.proto",
        "gsdk/err.proto",
        "gsdk/gateway.proto",
        "gsdk/login.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    // The method Connect would collide with the generated `connect` of the transport.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    // The log of this worktree's HEAD grows with every commit. A path that does not exist, as
    // `.git/HEAD` in a linked worktree, would make every build a full one.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo:rerun-if-changed={log}");
    }
    Ok(())
}

/// What git answers; `None` without git or without a repository.
fn git(args: &[&str]) -> Option<String> {
    let out = std::process::Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !text.is_empty()).then_some(text)
}
