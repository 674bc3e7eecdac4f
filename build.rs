//! Compiles `proto/` with protox: no protoc to install.

/// Messages whose texts are read as bytes, which look the same on the wire: a text that is not
/// UTF-8 would make the whole answer unreadable.
const READ_FROM_GATEWAYS: [&str; 4] =
    ["DeviceInfo", "FactoryInfo", "PendingDeviceInfo", "SearchDeviceInfo"];
/// Their numbers in `google.protobuf.FieldDescriptorProto.Type`.
const TYPE_STRING: i32 = 9;
const TYPE_BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "gsdk/connect.proto",
        "gsdk/connect_master.proto",
        "gsdk/device.proto",
        "gsdk/err.proto",
        "gsdk/event.proto",
        "gsdk/gateway.proto",
        "gsdk/login.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(files, ["proto"])?;
    let files = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    for message in files.filter(|message| READ_FROM_GATEWAYS.contains(&message.name())) {
        let texts = message.field.iter_mut().filter(|field| field.r#type == Some(TYPE_STRING));
        texts.for_each(|field| field.r#type = Some(TYPE_BYTES));
    }
    // The method Connect would collide with the generated `connect` of the transport.
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    // Set where there is no repository, as in the container image.
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    let commit = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = commit.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
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
