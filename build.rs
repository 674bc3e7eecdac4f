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
    let commit =
        std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = commit.ok().filter(|out| out.status.success());
    let commit = commit.and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default();
    let commit = if commit.trim().is_empty() { "unknown" } else { commit.trim() };
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    Ok(())
}
